package org.sessionha;

import java.util.LinkedHashMap;
import java.util.Map;

import org.apache.catalina.Context;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.Session;
import org.apache.catalina.SessionEvent;
import org.apache.catalina.SessionListener;

/**
 * Sessions that are not here any more, and why. Bounded: the oldest are forgotten first.
 *
 * Not remembered: sessions that end with their web application. They go on at another member, or here after the restart.
 */
final class Departed {

    enum Why {
        /** The application ended it. The response says so, or if it could not, the next one of a request with the id. */
        ENDED,
        /**
         * Nobody used it for too long. That may have been a stale copy of a session that lives at another member: httpd
         * is asked. If what it brings is what expired here, the session has ended.
         */
        EXPIRED,
        /** httpd brought it, and it could not be used: it makes no sense to ask for it again. */
        UNUSABLE
    }

    private static final int MAX = 16384;

    /** Backups outlive their sessions a little; afterwards nobody can bring what expired. */
    private static final long EXPIRED_MS = 300_000;
    private static final long UNUSABLE_MS = 60_000;

    private final Map<String,Entry> entries = new LinkedHashMap<>();

    /** Remembers this session when it ends. */
    void watch(Session session) {
        session.addSessionListener(new Watcher());
    }

    /** Why it is not here; null: not known, or it is. */
    synchronized Why why(Context context, String base) {
        Entry entry = entries.get(key(context, base));
        return entry == null || entry.until < System.currentTimeMillis() ? null : entry.why;
    }

    /** Is this version what ended here, or older? */
    synchronized boolean isOver(Context context, String base, Version version) {
        Why why = why(context, base);
        if (why != Why.ENDED && why != Why.EXPIRED) {
            return false;
        }
        Entry entry = entries.get(key(context, base));
        if (entry.version.compareTo(version) < 0) {
            return false;
        }
        remember(context, base, new Entry(Why.ENDED, entry.version, entry.until));
        return true;
    }

    synchronized void forget(Context context, String base) {
        entries.remove(key(context, base));
    }

    void unusable(Context context, String base) {
        if (why(context, base) == null) {
            remember(context, base, new Entry(Why.UNUSABLE, null, System.currentTimeMillis() + UNUSABLE_MS));
        }
    }

    private synchronized void remember(Context context, String base, Entry entry) {
        entries.remove(key(context, base));
        entries.put(key(context, base), entry);
        if (entries.size() > MAX) {
            entries.remove(entries.keySet().iterator().next());
        }
    }

    private static String key(Context context, String base) {
        return context.getName() + ' ' + base;
    }

    private static final class Entry {
        final Why why;
        final Version version;
        final long until;

        Entry(Why why, Version version, long until) {
            this.why = why;
            this.version = version;
            this.until = until;
        }
    }

    private final class Watcher implements SessionListener {

        @Override
        public void sessionEvent(SessionEvent event) {
            Session session = event.getSession();
            SessionRecord record = SessionRecord.of(session);
            if (!Session.SESSION_DESTROYED_EVENT.equals(event.getType()) || record == null
                    || session.getManager().getContext().getState() != LifecycleState.STARTED) {
                return;
            }
            Context context = session.getManager().getContext();
            String base = SessionIds.base(session.getIdInternal(), SessionIds.ownRoute(context));
            long now = System.currentTimeMillis();
            Entry entry = SessionRecord.isIdleTooLong(session)
                    ? new Entry(Why.EXPIRED, record.version(), now + EXPIRED_MS)
                    : new Entry(Why.ENDED, record.version(), now + SessionRecord.ttl(session) * 1000);
            remember(context, base, entry);
            String toldAs = record.toldAs();
            if (toldAs != null && !toldAs.equals(base)) {
                remember(context, toldAs, entry);       // its id changed, and nobody was told
            }
        }
    }
}
