package org.sessionha;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.Principal;
import java.util.ArrayList;
import java.util.ConcurrentModificationException;
import java.util.Enumeration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;

import org.apache.catalina.Context;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.authenticator.Constants;
import org.apache.catalina.session.ManagerBase;
import org.apache.catalina.session.StandardSession;
import org.apache.catalina.util.CustomObjectInputStream;
import org.apache.juli.logging.Log;

/**
 * A session as bytes: the path of its web application, then what Tomcat's own stores write and
 * {@code StandardSession.readObjectData} reads. The path, because a cookie with Path=/ takes the id of one application's
 * session to another one.
 *
 * The stores call {@code writeObjectData}, which unbinds what is not serialisable from the living session. A store that
 * swaps a session out may do that; a backup after each request must not, so a StandardSession is read from outside here.
 * Sessions of other classes write themselves.
 */
final class SessionState {

    /** An application may change a collection while it is read. */
    private static final int ATTEMPTS = 8;

    /** The whole state. */
    final byte[] bytes;
    /** Of all but the times and the id: what makes a change. */
    final byte[] digest;

    private SessionState(byte[] bytes, int from, int maxInactive) {
        this.bytes = bytes;
        try {
            MessageDigest sum = MessageDigest.getInstance("SHA-256");
            sum.update(new byte[] { (byte) (maxInactive >> 24), (byte) (maxInactive >> 16), (byte) (maxInactive >> 8),
                    (byte) maxInactive });
            sum.update(bytes, from, bytes.length - from);
            this.digest = sum.digest();
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The session must be valid. The web application's class loader is in force meanwhile. */
    static SessionState read(StandardSession session, Unserialisable warned) throws IOException {
        Manager manager = session.getManager();
        if (manager == null) {
            throw new IOException("it made way for a newer copy meanwhile");
        }
        Context context = manager.getContext();
        ClassLoader before = context.bind(false, null);
        try {
            for (int attempt = 1;; attempt++) {
                try {
                    SessionState state = session.getClass() == StandardSession.class ? fromOutside(session, manager, warned)
                            : bySelf(session, context);
                    if (session.getManager() != manager) {
                        // a session that Tomcat has taken back into use is empty, and would be told as if it was that
                        throw new IOException("it ended meanwhile");
                    }
                    return state;
                } catch (ConcurrentModificationException e) {
                    if (attempt == ATTEMPTS) {
                        throw new IOException("the application kept changing it", e);
                    }
                } catch (IllegalStateException e) {
                    throw new IOException("it ended meanwhile", e);
                } catch (StackOverflowError e) {
                    throw new IOException("an attribute is nested too deeply to be serialised", e);
                } catch (RuntimeException e) {
                    throw new IOException("an attribute cannot be serialised: " + e, e);
                }
            }
        } finally {
            context.unbind(false, before);
        }
    }

    private static SessionState bySelf(StandardSession session, Context context) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(1024);
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeUTF(context.getPath());
            session.writeObjectData(out);
        }
        return new SessionState(bytes.toByteArray(), 0, session.getMaxInactiveInterval());
    }

    private static SessionState fromOutside(StandardSession session, Manager manager, Unserialisable warned)
            throws IOException {
        List<String> names = new ArrayList<>();
        List<Object> values = new ArrayList<>();
        for (Enumeration<String> all = session.getAttributeNames(); all.hasMoreElements();) {
            String name = all.nextElement();
            Object value = session.getAttribute(name);
            if (value == null) {
                continue;       // removed since
            }
            if (!session.isAttributeDistributable(name, value)) {
                warned.warn(name, value);
            } else if (manager.willAttributeDistribute(name, value)) {
                names.add(name);
                values.add(value);
            }
        }
        Principal principal = session.getPrincipal();
        if (principal != null && !(principal instanceof java.io.Serializable)) {
            warned.warn("the principal", principal);
            principal = null;
        }

        ByteArrayOutputStream bytes = new ByteArrayOutputStream(1024);
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeUTF(manager.getContext().getPath());
            out.writeObject(Long.valueOf(session.getCreationTimeInternal()));
            out.writeObject(Long.valueOf(session.getLastAccessedTimeInternal()));
            out.writeObject(Integer.valueOf(session.getMaxInactiveInterval()));
            // where it is restored, the client has long joined it; a constant keeps the bytes below comparable
            out.writeObject(Boolean.FALSE);
            out.writeObject(Boolean.TRUE);
            out.writeObject(Long.valueOf(session.getThisAccessedTimeInternal()));
            out.writeObject(session.getIdInternal());
            out.flush();
            int from = bytes.size();

            out.writeObject(session.getAuthType());
            try {
                out.writeObject(principal);
            } catch (NotSerializableException e) {
                warned.warn("the principal", principal);
            }
            Object authenticatedAs = session.getNote(Constants.SESSION_ID_NOTE);
            out.writeObject(authenticatedAs instanceof String ? authenticatedAs : null);
            Object savedRequest = session.getNote(Constants.FORM_REQUEST_NOTE);
            out.writeObject(savedRequest instanceof java.io.Serializable ? savedRequest : null);

            out.writeObject(Integer.valueOf(names.size()));
            for (int i = 0; i < names.size(); i++) {
                out.writeObject(names.get(i));
                try {
                    out.writeObject(values.get(i));
                } catch (NotSerializableException e) {
                    // the stream now says so itself, and the reader leaves the attribute out
                    warned.warn(names.get(i), values.get(i));
                }
            }
            out.flush();
            return new SessionState(bytes.toByteArray(), from, session.getMaxInactiveInterval());
        }
    }

    /** A session of this manager, not yet known to it, with the state given; null: it belongs to another application. */
    static StandardSession write(byte[] state, Manager manager, ClassFilter filter, Log log)
            throws IOException, ClassNotFoundException {
        Context context = manager.getContext();
        ClassLoader before = context.bind(false, null);
        try {
            try (CustomObjectInputStream in = new CustomObjectInputStream(new ByteArrayInputStream(state),
                    context.getLoader().getClassLoader(), log, allowedByManager(manager), true)) {
                filter.install(in);
                if (!in.readUTF().equals(context.getPath())) {
                    return null;
                }
                Session empty = manager.createEmptySession();
                if (!(empty instanceof StandardSession)) {
                    throw new IOException("sessions of " + manager + " are of another kind");
                }
                StandardSession session = (StandardSession) empty;
                session.readObjectData(in);
                if (session.getIdInternal() == null) {
                    throw new IOException("it has no id");
                }
                return session;
            }
        } catch (StackOverflowError e) {
            throw new IOException("nested too deeply", e);
        } catch (RuntimeException e) {
            throw new IOException(e.toString(), e);
        } finally {
            context.unbind(false, before);
        }
    }

    /** sessionAttributeValueClassNameFilter means here what it means to Tomcat's stores. */
    private static Pattern allowedByManager(Manager manager) {
        String filter = manager instanceof ManagerBase
                ? ((ManagerBase) manager).getSessionAttributeValueClassNameFilter() : null;
        return filter == null ? null : Pattern.compile(filter);
    }

    /** Says once for each name that an attribute is not in the backups. */
    static final class Unserialisable {

        private static final int MAX_NAMES = 1000;

        private final Set<String> names = ConcurrentHashMap.newKeySet();
        private final Log log;

        Unserialisable(Log log) {
            this.log = log;
        }

        void warn(String name, Object value) {
            if (names.size() < MAX_NAMES && names.add(name)) {
                log.warn("Session backup: " + name + " (" + value.getClass().getName()
                        + ") cannot be serialised and is not in the backups");
            }
        }
    }
}
