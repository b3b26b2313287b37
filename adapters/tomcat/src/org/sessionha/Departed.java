package org.sessionha;

import java.util.LinkedHashMap;
import java.util.Map;

import org.apache.catalina.Context;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.Session;
import org.apache.catalina.SessionEvent;
import org.apache.catalina.SessionListener;

/**
 * Sessions that the application has ended (logout), each with its last version. The response of that request says so;
 * if it was committed already, or came from another thread, the next request that names the id does, and a restore of
 * what was ended is refused. Bounded: the oldest are forgotten first.
 *
 * Not counted as ended: a session that expired because nobody used it (a stale copy does that too, while the session
 * lives at another member), and sessions that end with their web application.
 */
final class Departed {

    private static final int MAX = 4096;

    private final Map<String,Entry> entries = new LinkedHashMap<>();

    /** Calls back when the application ends this session. */
    void watch(Session session) {
        session.addSessionListener(new Watcher());
    }

    /** The version at which this session ended here; NULL: it did not, as far as is known. */
    synchronized Version ended(Context context, String base) {
        Entry entry = entries.get(key(context, base));
        return entry == null || entry.until < System.currentTimeMillis() ? null : entry.version;
    }

    synchronized void forget(Context context, String base) {
        entries.remove(key(context, base));
    }

    private synchronized void remember(Context context, String base, Version version, long until) {
        entries.remove(key(context, base));
        entries.put(key(context, base), new Entry(version, until));
        if (entries.size() > MAX) {
            entries.remove(entries.keySet().iterator().next());
        }
    }

    private static String key(Context context, String base) {
        return context.getName() + ' ' + base;
    }

    private static final class Entry {
        final Version version;
        final long until;

        Entry(Version version, long until) {
            this.version = version;
            this.until = until;
        }
    }

    private final class Watcher implements SessionListener {

        @Override
        public void sessionEvent(SessionEvent event) {
            if (!Session.SESSION_DESTROYED_EVENT.equals(event.getType())) {
                return;
            }
            Session session = event.getSession();
            Context context = session.getManager().getContext();
            int maxInactive = session.getMaxInactiveInterval();
            boolean idle = maxInactive > 0 && session.getIdleTimeInternal() / 1000 >= maxInactive;
            SessionRecord record = SessionRecord.of(session);
            if (idle || record == null || context.getState() != LifecycleState.STARTED) {
                return;
            }
            long until = System.currentTimeMillis() + SessionRecord.ttl(session) * 1000;
            String base = SessionIds.base(session.getIdInternal(), SessionIds.ownRoute(context));
            remember(context, base, record.version(), until);
            String toldAs = record.toldAs();
            if (toldAs != null && !toldAs.equals(base)) {
                remember(context, toldAs, record.version(), until);     // its id changed, and nobody was told
            }
        }
    }
}
