package org.sessionha;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.catalina.Context;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.LifecycleEvent;
import org.apache.catalina.LifecycleListener;
import org.apache.catalina.core.StandardContext;

/**
 * The requests of a web application that are running. When it stops, Tomcat ends its sessions under them: what they did since
 * their beginning would be in no backup. So the stop waits for them, for as long as Tomcat waits for its servlets
 * (unloadDelay); whoever takes longer is refused (Exchange), and whoever begins then is not run (SessionBackupValve).
 *
 * Tomcat's own wait is not enough: a request that is through with its servlet then waits for the others, and its response is
 * committed after the sessions have ended.
 */
final class Running implements LifecycleListener {

    private static final long UNLOAD_DELAY_MS = 2000;

    private final AtomicInteger requests = new AtomicInteger();
    private volatile int stops;
    private volatile boolean stopping;

    /** False: the web application is stopping, and what begins now would be waited for by nobody. */
    boolean enter() {
        requests.incrementAndGet();
        boolean may = !stopping;
        if (!may) {
            leave();
        }
        return may;
    }

    void leave() {
        if (requests.decrementAndGet() == 0 && stops > 0) {
            synchronized (this) {
                notifyAll();
            }
        }
    }

    /** How often it has stopped, or begun to. */
    int stops() {
        return stops;
    }

    @Override
    public void lifecycleEvent(LifecycleEvent event) {
        if (Lifecycle.BEFORE_STOP_EVENT.equals(event.getType())) {
            awaitEnd((Context) event.getLifecycle());
        } else if (Lifecycle.BEFORE_START_EVENT.equals(event.getType())) {
            stopping = false;
        }
    }

    private synchronized void awaitEnd(Context context) {
        long delay = context instanceof StandardContext ? ((StandardContext) context).getUnloadDelay() : UNLOAD_DELAY_MS;
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(delay);
        stops++;
        stopping = true;
        try {
            for (long left = delay; requests.get() > 0 && left > 0;
                    left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime())) {
                wait(left);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
