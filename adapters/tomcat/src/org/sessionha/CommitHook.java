package org.sessionha;

import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicBoolean;

import org.apache.catalina.connector.Request;
import org.apache.coyote.ActionCode;
import org.apache.coyote.ActionHook;
import org.apache.coyote.OutputBuffer;
import org.apache.coyote.Response;

/**
 * Stands between a response and its connector until the response is committed, and lets the exchange write its field
 * just before: the last moment at which a header can be written, whoever commits (a full buffer, a flush, sendError, an
 * error page, an async thread, the end of the request).
 *
 * There are two roads to the commit. Through the ActionHook (COMMIT, and FLUSH and CLOSE, which imply it): http/1.1, h2.
 * Through the coyote OutputBuffer, which in AJP sends the headers with the first byte of a body without an action. Both
 * are put back at the first use; a hook that was never used (the client went away) is recognised as stale because the
 * request no longer holds its exchange, and does nothing.
 *
 * Coyote has no public way to do this; the two fields have had these names and types from Tomcat 7 to 11. Where they
 * cannot be had, {@link #AVAILABLE} is false and the Valve falls back to the time after the application has returned.
 */
final class CommitHook implements ActionHook, OutputBuffer {

    private static final Field HOOK = field("hook", ActionHook.class);
    private static final Field BUFFER = field("outputBuffer", OutputBuffer.class);

    static final boolean AVAILABLE = HOOK != null && BUFFER != null;

    private final Request request;
    private final Response response;
    private final Exchange exchange;
    private final AtomicBoolean used = new AtomicBoolean();
    private ActionHook hook;
    private OutputBuffer buffer;

    private CommitHook(Request request, Exchange exchange) {
        this.request = request;
        this.response = request.getCoyoteRequest().getResponse();
        this.exchange = exchange;
    }

    static boolean install(Request request, Exchange exchange) {
        if (!AVAILABLE) {
            return false;
        }
        CommitHook own = new CommitHook(request, exchange);
        try {
            own.hook = (ActionHook) HOOK.get(own.response);
            own.buffer = (OutputBuffer) BUFFER.get(own.response);
            if (own.hook instanceof CommitHook) {
                own.hook = ((CommitHook) own.hook).hook;
            }
            if (own.buffer instanceof CommitHook) {
                own.buffer = ((CommitHook) own.buffer).buffer;
            }
            if (own.hook == null || own.buffer == null) {
                return false;
            }
            HOOK.set(own.response, own);
            BUFFER.set(own.response, own);
            return true;
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void action(ActionCode code, Object param) {
        if (code == ActionCode.COMMIT || code == ActionCode.CLIENT_FLUSH || code == ActionCode.CLOSE) {
            use();
        }
        hook.action(code, param);
    }

    @Override
    public int doWrite(ByteBuffer chunk) throws IOException {
        use();
        return buffer.doWrite(chunk);
    }

    @Override
    public long getBytesWritten() {
        return buffer.getBytesWritten();
    }

    private void use() {
        if (!used.compareAndSet(false, true)) {
            return;
        }
        try {
            if (HOOK.get(response) == this) {
                HOOK.set(response, hook);
            }
            if (BUFFER.get(response) == this) {
                BUFFER.set(response, buffer);
            }
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(e);
        }
        if (!response.isCommitted() && Exchange.of(request) == exchange) {
            exchange.beforeCommit();
        }
    }

    private static Field field(String name, Class<?> type) {
        try {
            Field field = Response.class.getDeclaredField(name);
            field.setAccessible(true);
            return type.isAssignableFrom(field.getType()) ? field : null;
        } catch (ReflectiveOperationException | RuntimeException e) {
            return null;
        }
    }
}
