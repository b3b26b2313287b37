package org.sessionha;

import java.io.IOException;
import java.util.Map;

import org.apache.catalina.Context;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.authenticator.Constants;
import org.apache.catalina.session.StandardSession;
import org.apache.juli.logging.Log;

/** Takes sessions over. Nothing is looked at before the signature is found good. */
final class Restorer {

    enum Outcome { TAKEN, HELD, UNSIGNED, FOREIGN, UNUSABLE }

    private static final int LOCKS = 64;

    private final SessionBackupValve valve;
    private final ClassFilter filter;
    private final Log log;
    private final Object[] locks = new Object[LOCKS];

    Restorer(SessionBackupValve valve, ClassFilter filter, Log log) {
        this.valve = valve;
        this.filter = filter;
        this.log = log;
        for (int i = 0; i < LOCKS; i++) {
            locks[i] = new Object();
        }
    }

    Outcome restore(Context context, Map<String,Object> field, byte[] state) {
        String base = Field.string(field, "id");
        Version version = new Version(Field.integer(field, "epoch", -1), Field.integer(field, "seq", -1));
        byte[] mac = Field.bytes(field, "mac");
        if (!SessionIds.wellFormed(base) || version.epoch < 1 || version.seq < 0 || mac == null || state == null
                || !valve.signed(mac, Secret.restoreMessage(base, version, state))) {
            return Outcome.UNSIGNED;
        }
        // two requests that bring the same session: the second finds what the first has taken
        synchronized (locks[(base.hashCode() & Integer.MAX_VALUE) % LOCKS]) {
            return take(context, base, version, Field.flag(field, "former"), state);
        }
    }

    private Outcome take(Context context, String base, Version version, boolean former, byte[] state) {
        Manager manager = context.getManager();
        String id = SessionIds.full(base, SessionIds.ownRoute(context));
        if (valve.departed().isOver(context, base, version)) {
            return Outcome.HELD;
        }
        try {
            Session held = manager.findSession(id);
            SessionRecord record = held == null ? null : SessionRecord.of(held);
            if (held != null && held.isValid()) {
                if (record != null && !record.makesWayFor(version, former)) {
                    record.stay();
                    return Outcome.HELD;
                }
            } else {
                held = null;
            }
            StandardSession session = SessionState.write(state, manager, filter, log);
            if (session == null) {
                return Outcome.FOREIGN;
            }
            String idBefore = session.getIdInternal();
            // without a manager setId() does not remove what is held under the id of the state
            session.setManager(null);
            session.setId(id, false);
            session.setManager(manager);
            if (idBefore.equals(session.getNote(Constants.SESSION_ID_NOTE))) {
                session.setNote(Constants.SESSION_ID_NOTE, id);     // a form login that had begun goes on
            }
            SessionRecord.restored(session, base, version);
            valve.departed().watch(session);
            valve.departed().forget(context, base);
            if (SessionRecord.isIdleTooLong(session)) {
                // its last use may not have been told, or the members' clocks differ: that httpd still has it counts
                session.access();
                session.endAccess();
            }
            // before: a response in between must not take the new copy for the one it began with
            if (held != null && record != null && !record.makeWayFor(version, former)) {
                return Outcome.HELD;
            }
            // one step in the manager's map: a parallel request finds the old copy or the new one, never none
            manager.add(session);
            if (held != null) {
                // no listener is told and nothing is unbound: the session goes on, only this copy of it does not
                held.recycle();
            }
            activate(context, session);
            log.info("Session backup: took over session " + SessionIds.digest(base) + " of " + context.getName() + ", "
                    + version + ", " + state.length + " bytes" + (held == null ? "" : ", in place of an older copy"));
            return Outcome.TAKEN;
        } catch (IOException | ClassNotFoundException | RuntimeException e) {
            log.warn("Session backup: could not take over session " + SessionIds.digest(base) + " of " + context.getName()
                    + ", " + version + ", " + state.length + " bytes: " + reason(e));
            log.debug("Session backup", e);
            valve.departed().unusable(context, base);
            return Outcome.UNUSABLE;
        }
    }

    private static String reason(Exception e) {
        return e.getClass().getSimpleName() + ": " + e.getMessage();
    }

    private static void activate(Context context, StandardSession session) {
        ClassLoader before = context.bind(false, null);
        try {
            session.activate();
        } finally {
            context.unbind(false, before);
        }
    }
}
