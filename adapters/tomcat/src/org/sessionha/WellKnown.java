package org.sessionha;

import java.io.IOException;
import java.io.InputStream;
import java.util.Map;
import java.util.concurrent.TimeUnit;

import jakarta.servlet.http.HttpServletResponse;

import org.apache.catalina.Context;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.session.StandardSession;

/** The path where httpd fetches a state (GET) and hands one over (PUT). Every request must be signed. */
final class WellKnown {

    private static final long MAX_AGE_S = 60;
    private static final int SC_UNPROCESSABLE = 422;

    private final SessionBackupValve valve;
    private final Restorer restorer;
    private final long maxSize;

    WellKnown(SessionBackupValve valve, Restorer restorer, long maxSize) {
        this.valve = valve;
        this.restorer = restorer;
        this.maxSize = maxSize;
    }

    static boolean isFor(Request request) {
        Context context = request.getContext();
        String path = request.getDecodedRequestURI();
        return context != null && path != null && path.endsWith(Fields.WELL_KNOWN)
                && path.equals(context.getPath() + Fields.WELL_KNOWN);
    }

    void answer(Request request, Response response, boolean trusted) throws IOException {
        response.setHeader("Cache-Control", "no-store");
        String method = request.getMethod();
        if ("GET".equals(method)) {
            fetch(request, response, trusted);
        } else if ("PUT".equals(method)) {
            put(request, response, trusted);
        } else {
            response.setHeader("Allow", "GET, PUT");
            end(response, HttpServletResponse.SC_METHOD_NOT_ALLOWED);
        }
    }

    private void fetch(Request request, Response response, boolean trusted) throws IOException {
        Map<String,Object> field = trusted ? valve.field(request, Fields.FETCH) : null;
        if (field == null || !fresh(field)) {
            end(response, HttpServletResponse.SC_FORBIDDEN);
            return;
        }
        Context context = request.getContext();
        String base = Field.string(field, "id");
        Manager manager = context.getManager();
        Session session = manager == null ? null
                : manager.findSession(SessionIds.full(base, SessionIds.ownRoute(context)));
        SessionRecord record = session == null ? null : SessionRecord.of(session);
        if (record == null || !session.isValid() || !(session instanceof StandardSession)) {
            end(response, HttpServletResponse.SC_NOT_FOUND);
            return;
        }
        if (Field.flag(field, "leave")) {
            response.setHeader(Fields.BACKUP, Fields.leaving(base, record.version(), SessionRecord.ttl(session), record.leave()));
            end(response, HttpServletResponse.SC_NO_CONTENT);
            return;
        }
        SessionRecord.Announced announced = record.takeAnnounced();
        if (announced == null) {
            Version drawn = record.draw();
            SessionState state;
            try {
                state = SessionState.read((StandardSession) session, valve.unserialisable());
            } catch (IOException e) {
                valve.failed("nothing to be fetched", e);
                end(response, HttpServletResponse.SC_NOT_FOUND);
                return;
            }
            Version version = record.numberOf(state, drawn);
            record.exported(version, base, state, false, System.currentTimeMillis());
            announced = new SessionRecord.Announced(version, state.bytes);
        }
        response.setHeader(Fields.BACKUP,
                Fields.fetched(base, announced.version, SessionRecord.ttl(session), announced.state.length));
        response.setContentType("application/octet-stream");
        response.setContentLength(announced.state.length);
        response.getOutputStream().write(announced.state);
    }

    private boolean fresh(Map<String,Object> field) {
        String base = Field.string(field, "id");
        long seconds = Field.integer(field, "time", -1);
        byte[] mac = Field.bytes(field, "mac");
        long age = TimeUnit.MILLISECONDS.toSeconds(System.currentTimeMillis()) - seconds;
        return SessionIds.wellFormed(base) && seconds >= 0 && mac != null && Math.abs(age) <= MAX_AGE_S
                && valve.signed(mac, Secret.fetchMessage(base, seconds));
    }

    private void put(Request request, Response response, boolean trusted) throws IOException {
        Map<String,Object> field = trusted ? valve.field(request, Fields.RESTORE) : null;
        if (field == null || Field.bytes(field, "mac") == null || request.getContext().getManager() == null) {
            end(response, HttpServletResponse.SC_FORBIDDEN);
            return;
        }
        byte[] state = null;
        if (request.getContentLengthLong() <= maxSize) {
            try (InputStream body = request.getInputStream()) {
                state = body.readNBytes((int) maxSize + 1);
            }
        }
        if (state == null || state.length > maxSize) {
            String base = Field.string(field, "id");
            if (SessionIds.wellFormed(base)) {
                valve.departed().unusable(request.getContext(), base);
            }
            end(response, HttpServletResponse.SC_REQUEST_ENTITY_TOO_LARGE);
            return;
        }
        switch (restorer.restore(request.getContext(), field, state)) {
        case TAKEN:
            end(response, HttpServletResponse.SC_NO_CONTENT);
            break;
        case HELD:
            end(response, HttpServletResponse.SC_PRECONDITION_FAILED);
            break;
        case UNSIGNED:
            valve.forged(Fields.RESTORE);
            end(response, HttpServletResponse.SC_FORBIDDEN);
            break;
        default:
            end(response, SC_UNPROCESSABLE);
        }
    }

    /** A status without Tomcat's error page. */
    static void end(Response response, int status) {
        response.setErrorReported();
        response.setStatus(status);
    }
}
