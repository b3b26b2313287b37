package org.sessionha;

import java.lang.ref.SoftReference;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.Session;

/**
 * What this member knows about the backup of one session. It hangs on the session as a note, which is never serialised,
 * survives a change of the id and goes with the session. A session without one came from somewhere else (a restart of
 * Tomcat with its own session store): nobody can say how new that copy is, so it does not count as held.
 *
 * Numbers are drawn before the state is read, not under a lock held while it is read: the application's own writeObject
 * may take the application's locks (Vector does), and a response may be committed while one of those is held. The order
 * is right all the same. Whoever changes the session draws its number after the change, so a higher number was read
 * after every change that a lower one announced.
 */
final class SessionRecord {

    /** Told for a session that never expires: 30 days. */
    private static final long FOR_EVER = 2_592_000;

    /** Between two questions of an httpd that waits, at most. */
    private static final long LEAVING_NS = TimeUnit.MILLISECONDS.toNanos(250);

    /** What an httpd needs to store the last answer, and to see that the session is still there. */
    private static final long QUIET_NS = TimeUnit.MILLISECONDS.toNanos(50);

    private static final String NOTE = "org.sessionha.record";

    private final long epoch;
    private long drawn;
    private long seq;
    private byte[] digest;
    private long exportedAt;
    private String toldAs;
    private boolean recheck;
    /** A newer copy of the session has taken the place of this one. */
    private boolean replaced;
    /** Requests that run in this copy, and when the last one ended. */
    private int running;
    private long endedAt = System.nanoTime() - QUIET_NS;
    /** httpd waits for the last one, to move the session; until then no other begins. */
    private long leavingUntil = endedAt;
    /** There is none any more: it lives elsewhere, unless httpd says that it stays. */
    private boolean left;
    /** Something was told of this copy. */
    private boolean told;
    /** Soft: httpd may never fetch it, and the session can be read again. */
    private SoftReference<byte[]> announced;

    private SessionRecord(Version version, String toldAs) {
        this.epoch = version.epoch;
        this.seq = version.seq;
        this.drawn = version.seq;
        this.toldAs = toldAs;
    }

    /** NULL: how new this copy is, is not known here. */
    static SessionRecord of(Session session) {
        return (SessionRecord) session.getNote(NOTE);
    }

    static SessionRecord create(Session session) {
        synchronized (session) {
            SessionRecord record = of(session);
            if (record == null) {
                record = new SessionRecord(Version.FIRST, null);
                session.setNote(NOTE, record);
            }
            return record;
        }
    }

    /** The next response tells it in any case: then the store knows the new owner's epoch. */
    static void restored(Session session, String base, Version version) {
        SessionRecord record = new SessionRecord(version, base);
        record.recheck = true;
        session.setNote(NOTE, record);
    }

    /** Seconds for which a backup of this session is wanted. */
    static long ttl(Session session) {
        int seconds = session.getMaxInactiveInterval();
        return seconds > 0 ? seconds : FOR_EVER;
    }

    static boolean isIdleTooLong(Session session) {
        int seconds = session.getMaxInactiveInterval();
        return seconds > 0 && session.getIdleTimeInternal() / 1000 >= seconds;
    }

    synchronized Version version() {
        return new Version(epoch, seq);
    }

    /** The number of the version that is going to be read from the session now. */
    synchronized Version draw() {
        return new Version(epoch, ++drawn);
    }

    /**
     * Was this state last told before the request that asks began (then whatever that request did changed nothing), and
     * is that not too long ago for the backup's time to live?
     */
    synchronized boolean isTold(SessionState read, Version atStart, long now, long refresh) {
        return Arrays.equals(digest, read.digest) && atStart != null && atStart.seq == seq
                && now - exportedAt < refresh && exportedAt <= now;
    }

    /** The number under which this state is told: what was told last keeps its own, and httpd need not store it again. */
    synchronized Version numberOf(SessionState read, Version drawn) {
        return Arrays.equals(digest, read.digest) ? new Version(epoch, seq) : drawn;
    }

    synchronized void exported(Version version, String base, SessionState read, boolean keep, long now) {
        if (version.seq >= seq) {
            seq = version.seq;
            digest = read.digest;
            toldAs = base;
            exportedAt = now;
            told = true;
            announced = keep ? new SoftReference<>(read.bytes) : null;
        }
    }

    /** The state that was announced last, if it has not been fetched yet; NULL: none. */
    synchronized Announced takeAnnounced() {
        byte[] state = announced == null ? null : announced.get();
        announced = null;
        return state == null ? null : new Announced(new Version(epoch, seq), state);
    }

    /** A state that was too large for a field, and its number. */
    static final class Announced {
        final Version version;
        final byte[] state;

        Announced(Version version, byte[] state) {
            this.version = version;
            this.state = state;
        }
    }

    /** The id under which the backup was last told; NULL: never. */
    synchronized String toldAs() {
        return toldAs;
    }

    enum Entry { IN, REPLACED, LEFT }

    /**
     * A request begins in this copy, unless a newer one is taking its place, or the session has left. While it is leaving, the
     * request waits. brought: httpd has looked, and the session lives here.
     */
    synchronized Entry enter(boolean brought) {
        if (brought) {
            stay();
        } else {
            await();
        }
        if (replaced) {
            return Entry.REPLACED;
        }
        if (left) {
            return Entry.LEFT;
        }
        running++;
        return Entry.IN;
    }

    private void await() {
        try {
            for (long ns = waitFor(); ns > 0; ns = waitFor()) {
                wait(TimeUnit.NANOSECONDS.toMillis(ns) + 1);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private long waitFor() {
        return replaced || left ? 0 : leavingUntil - System.nanoTime();
    }

    /** Of a request that is in. What it does after its answer was told is for the next one to tell. */
    final class Visit {
        private boolean over;

        void end() {
            synchronized (SessionRecord.this) {
                if (!over) {
                    over = true;
                    running--;
                    endedAt = System.nanoTime();
                }
            }
        }
    }

    /**
     * httpd asks, again and again, until nobody is running. Whose answer has gone out a moment ago counts: it may still be on its
     * way into the store.
     */
    synchronized int leave() {
        long now = System.nanoTime();
        leavingUntil = now + LEAVING_NS;
        if (!left && running == 0 && now - endedAt >= QUIET_NS) {
            left = true;
            notifyAll();
        }
        return left ? 0 : Math.max(running, 1);
    }

    /** httpd has looked, and the session lives here. */
    synchronized void stay() {
        left = false;
        leavingUntil = System.nanoTime();
        notifyAll();
    }

    /**
     * Does this copy make way for that version? For a newer one. But what httpd hands over is a former owner's state, and there
     * may be several of one epoch: somebody brought an older one first. Once requests have run in that, it is the session.
     */
    synchronized boolean makesWayFor(Version version, boolean former) {
        return version().compareTo(version) < 0 && !(former && epoch == version.epoch && (running > 0 || told));
    }

    /** The same, and it has: requests may still run in it; what they change is in no backup. */
    synchronized boolean makeWayFor(Version version, boolean former) {
        replaced = makesWayFor(version, former);
        notifyAll();
        return replaced;
    }

    synchronized boolean isReplaced() {
        return replaced;
    }

    /** The session may have changed where no response could say so: the next response looks again. */
    synchronized void recheck() {
        recheck = true;
    }

    synchronized boolean takeRecheck() {
        boolean was = recheck;
        recheck = false;
        return was;
    }
}
