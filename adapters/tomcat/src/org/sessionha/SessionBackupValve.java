package org.sessionha;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Enumeration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

import jakarta.servlet.ServletException;
import jakarta.servlet.http.Cookie;
import jakarta.servlet.http.HttpServletResponse;

import org.apache.catalina.Container;
import org.apache.catalina.Context;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.util.SessionConfig;
import org.apache.catalina.valves.ValveBase;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Makes a Tomcat a member whose sessions httpd's mod_session_ha can keep a backup of: tells the state of a session with
 * the response that changed it, and takes a session over from a request that brings it. May stand in a Context, a Host
 * or an Engine. See README beside the sources for its attributes and doc/protocol.md for what is said on the wire.
 */
public class SessionBackupValve extends ValveBase {

    private static final Log LOG = LogFactory.getLog(SessionBackupValve.class);

    /** Loopback and the private ranges, IPv4 and IPv6. */
    private static final String PRIVATE_ADDRESSES = "127(?:\\.\\d{1,3}){3}|10(?:\\.\\d{1,3}){3}|192\\.168(?:\\.\\d{1,3}){2}"
            + "|172\\.(?:1[6-9]|2\\d|3[01])(?:\\.\\d{1,3}){2}|169\\.254(?:\\.\\d{1,3}){2}"
            + "|0:0:0:0:0:0:0:1|::1|f[cd][0-9a-f]{2}:[0-9a-f:]+|fe[89ab][0-9a-f]:[0-9a-f:]+(?:%.*)?";

    private static final int LOOKS = 1000;
    private static final long SILENCE_NS = TimeUnit.SECONDS.toNanos(10);

    private String secretFile;
    private String previousSecretFile;
    private String proxies = PRIVATE_ADDRESSES;
    private String classFilter;
    private String missing = "425";
    private int inline = 4096;
    private int maxSize = 8 * 1024 * 1024;
    private int bufferSize;

    private Secret secret;
    private Secret previousSecret;
    private Pattern trustedPeers;
    private Restorer restorer;
    private WellKnown wellKnown;
    private volatile Accepted accepted = new Accepted("", -1);
    private final Departed departed = new Departed();
    private final Map<Context,Running> running = new ConcurrentHashMap<>();
    private final SessionState.Unserialisable unserialisable = new SessionState.Unserialisable(LOG);
    private final AtomicLong saidFailed = new AtomicLong(System.nanoTime() - SILENCE_NS);
    private final AtomicBoolean saidForged = new AtomicBoolean();
    private final AtomicBoolean saidUnreadable = new AtomicBoolean();

    public SessionBackupValve() {
        super(true);
    }

    // ---- attributes -------------------------------------------------------------------------------------------

    public void setSecretFile(String file) {
        secretFile = file;
    }

    public String getSecretFile() {
        return secretFile;
    }

    public void setPreviousSecretFile(String file) {
        previousSecretFile = file;
    }

    public String getPreviousSecretFile() {
        return previousSecretFile;
    }

    public void setProxies(String regex) {
        proxies = regex;
    }

    public String getProxies() {
        return proxies;
    }

    public void setClassFilter(String patterns) {
        classFilter = patterns;
    }

    public String getClassFilter() {
        return classFilter;
    }

    public void setMissing(String what) {
        missing = what;
    }

    public String getMissing() {
        return missing;
    }

    public void setInline(int bytes) {
        inline = bytes;
    }

    public int getInline() {
        return inline;
    }

    public void setMaxSize(int bytes) {
        maxSize = bytes;
    }

    public int getMaxSize() {
        return maxSize;
    }

    public void setBufferSize(int bytes) {
        bufferSize = bytes;
    }

    public int getBufferSize() {
        return bufferSize;
    }

    // ---- start ------------------------------------------------------------------------------------------------

    @Override
    protected void startInternal() throws LifecycleException {
        if (secretFile == null || secretFile.isEmpty()) {
            throw new LifecycleException("SessionBackupValve: secretFile is missing; it names the file that httpd's "
                    + "SessionHASecret names");
        }
        if (!"425".equals(missing) && !"continue".equals(missing)) {
            throw new LifecycleException("SessionBackupValve: missing=\"" + missing + "\"; allowed are 425 and continue");
        }
        if (inline < 0 || maxSize < 1 || maxSize == Integer.MAX_VALUE || bufferSize < 0) {
            throw new LifecycleException("SessionBackupValve: inline and bufferSize must be 0 or more, maxSize 1 or more");
        }
        try {
            trustedPeers = Pattern.compile(proxies, Pattern.CASE_INSENSITIVE);
        } catch (PatternSyntaxException e) {
            throw new LifecycleException("SessionBackupValve: proxies is not a regular expression: " + e.getMessage(), e);
        }
        ClassFilter filter;
        try {
            filter = new ClassFilter(classFilter, maxSize);
        } catch (IllegalArgumentException e) {
            throw new LifecycleException("SessionBackupValve: classFilter is not a list of patterns as in "
                    + "jdk.serialFilter: " + e.getMessage(), e);
        }
        try {
            secret = new Secret(file(secretFile), LOG);
            previousSecret = previousSecretFile == null || previousSecretFile.isEmpty() ? null
                    : new Secret(file(previousSecretFile), LOG);
        } catch (IOException e) {
            throw new LifecycleException("SessionBackupValve: " + e.getMessage(), e);
        }
        if (!CommitHook.AVAILABLE) {
            LOG.warn("Session backup: this Tomcat does not let the Valve see a response being committed; a response that is "
                    + "committed before the application returns carries no backup, the next one does");
        }
        restorer = new Restorer(this, filter, LOG);
        wellKnown = new WellKnown(this, restorer, maxSize);
        super.startInternal();
    }

    private File file(String path) {
        File file = new File(path);
        return file.isAbsolute() ? file : new File(getContainer().getCatalinaBase(), path);
    }

    // ---- the way of a request ---------------------------------------------------------------------------------

    @Override
    public void invoke(Request request, Response response) throws IOException, ServletException {
        Exchange running = Exchange.of(request);
        if (running != null) {
            // an async dispatch, or a second Valve of this kind further out
            getNext().invoke(request, response);
            return;
        }
        boolean trusted = isTrusted(request);
        if (WellKnown.isFor(request)) {
            wellKnown.answer(request, response, trusted);
            return;
        }
        Context context = request.getContext();
        if (!trusted || context == null || context.getManager() == null || request.isAsyncDispatching()) {
            getNext().invoke(request, response);
            return;
        }

        boolean asked = false;
        if (request.getHeader(Fields.RESTORE) != null) {
            asked = true;
            restoreInline(request);
        }
        long inlineMax = inlineMax(request);
        if (inlineMax < 0) {
            follow(request, find(request));
            getNext().invoke(request, response);
            return;
        }

        Found found;
        SessionRecord record;
        SessionRecord.Entry entry;
        int looks = 0;
        do {
            found = find(request);
            record = found.session == null ? null : SessionRecord.of(found.session);
            entry = record == null ? null : record.enter(asked || !saysMissing());
        } while (entry == SessionRecord.Entry.REPLACED && ++looks < LOOKS);    // a restore is putting the new copy in its place
        if (entry == SessionRecord.Entry.LEFT) {
            missing(response, Fields.left(found.base));
            return;
        }
        SessionRecord.Visit visit = entry == SessionRecord.Entry.IN ? record.new Visit() : null;
        try {
            run(request, response, found, visit, asked, inlineMax);
        } finally {
            if (visit != null) {
                visit.end();
            }
        }
    }

    private static void missing(Response response, String field) {
        response.setHeader(Fields.MISSING, field);
        WellKnown.end(response, Fields.STATUS_MISSING);
    }

    private void run(Request request, Response response, Found found, SessionRecord.Visit visit, boolean asked, long inlineMax)
            throws IOException, ServletException {
        Context context = request.getContext();
        boolean vouched = found.session != null && SessionRecord.of(found.session) != null;
        if (!vouched && found.base != null && !asked && saysMissing()
                && mayComeBack(departed.why(context, found.base))
                && !isHeldByNeighbour(request, found.base, SessionIds.ownRoute(context))) {
            missing(response, Fields.missing(found.base));
            return;
        }
        Running here = runningIn(context);
        if (!here.enter()) {
            stopping(response, asked ? null : found.base);
            return;
        }
        try {
            runIn(here, request, response, found, visit, inlineMax);
        } finally {
            here.leave();
        }
    }

    private void runIn(Running here, Request request, Response response, Found found, SessionRecord.Visit visit, long inlineMax)
            throws IOException, ServletException {
        follow(request, found);
        Exchange exchange = new Exchange(this, request, here, Math.min(inlineMax, inline));
        exchange.begin(found.base, found.session, visit);
        boolean hooked = CommitHook.install(request, exchange);
        if (bufferSize > response.getBufferSize()) {
            response.setBufferSize(bufferSize);
        }
        try {
            getNext().invoke(request, response);
        } finally {
            exchange.returned(hooked);
        }
    }

    /** Not run: httpd takes a request that names a session to another member. */
    private void stopping(Response response, String base) {
        if (base != null && saysMissing()) {
            missing(response, Fields.missing(base));
        } else {
            WellKnown.end(response, HttpServletResponse.SC_SERVICE_UNAVAILABLE);
        }
    }

    private Running runningIn(Context context) {
        Running here = running.get(context);
        if (here == null) {
            here = new Running();
            Running other = running.putIfAbsent(context, here);
            if (other == null) {
                context.addLifecycleListener(here);
                context.addLifecycleListener(event -> {
                    if (Lifecycle.AFTER_DESTROY_EVENT.equals(event.getType())) {
                        running.remove(context);
                    }
                });
            } else {
                here = other;
            }
        }
        return here;
    }

    /** The peer itself, whatever RemoteIpValve makes of the client's address. AJP and Unix sockets do not say. */
    private boolean isTrusted(Request request) {
        String peer = request.getPeerAddr();
        return peer == null || peer.isEmpty() || trustedPeers.matcher(peer).matches();
    }

    private void restoreInline(Request request) {
        Map<String,Object> field = field(request, Fields.RESTORE);
        if (field == null) {
            forged(Fields.RESTORE);
        } else if (!Field.flag(field, "none")
                && restorer.restore(request.getContext(), field, Field.bytes(field, "state")) == Restorer.Outcome.UNSIGNED) {
            forged(Fields.RESTORE);
        }
    }

    /** How much state httpd takes in a field; -1: it wants no backups, or speaks a version we do not. */
    private long inlineMax(Request request) {
        String value = request.getHeader(Fields.ACCEPT);
        if (value == null) {
            return -1;
        }
        Accepted last = accepted;
        if (!last.value.equals(value)) {
            Map<String,Object> field = field(request, Fields.ACCEPT);
            boolean understood = field != null && Field.integer(field, "v", -1) == 1;
            last = new Accepted(value, understood ? Math.max(0, Field.integer(field, "inline", 0)) : -1);
            accepted = last;
        }
        return last.inlineMax;
    }

    /**
     * The session that the request names. Tomcat looks for the id as it stands; here a session counts as found under
     * whatever route the client still has. With several cookies of the name, the first whose session is held.
     */
    private Found find(Request request) throws IOException {
        String requested = request.getRequestedSessionId();
        Context context = request.getContext();
        String route = SessionIds.ownRoute(context);
        if (requested == null || requested.isEmpty()
                || !request.isRequestedSessionIdFromCookie() && !request.isRequestedSessionIdFromURL()) {
            return new Found(null, null, null);
        }
        Found found = held(context.getManager(), requested, route);
        if (found.session != null || !request.isRequestedSessionIdFromCookie()) {
            return found;
        }
        List<Found> named = new ArrayList<>();
        Cookie[] cookies = request.getCookies();
        String name = SessionConfig.getSessionCookieName(context);
        for (int i = 0; cookies != null && i < cookies.length; i++) {
            if (name.equals(cookies[i].getName())) {
                Found other = held(context.getManager(), cookies[i].getValue(), route);
                if (other.session != null) {
                    return other;
                }
                if (other.base != null) {
                    named.add(other);
                }
            }
        }
        return named.isEmpty() ? found : named.get(0);
    }

    private static Found held(Manager manager, String id, String route) throws IOException {
        if (!SessionIds.wellFormed(id)) {
            return new Found(null, null, null);
        }
        String base = SessionIds.base(id, route);
        Session session = manager.findSession(id);
        if (session != null && session.isValid()) {
            return new Found(base, id, session);
        }
        for (String candidate : SessionIds.bases(id, route)) {
            String own = SessionIds.full(candidate, route);
            session = own.equals(id) ? null : manager.findSession(own);
            if (session != null && session.isValid()) {
                return new Found(candidate, own, session);
            }
        }
        return new Found(base, null, null);
    }

    private static boolean mayComeBack(Departed.Why why) {
        return why == null || why == Departed.Why.EXPIRED;
    }

    /** With Path=/, a cookie brings the session of one application to all of them: then nothing is missing here. */
    private static boolean isHeldByNeighbour(Request request, String base, String route) throws IOException {
        Context context = request.getContext();
        for (Container child : context.getParent().findChildren()) {
            Manager manager = child == context || !(child instanceof Context) ? null : ((Context) child).getManager();
            if (manager != null && manager.findSession(SessionIds.full(base, route)) != null) {
                return true;
            }
        }
        return false;
    }

    /** Gives the request the id under which the session is held, and lets Tomcat tell the client. */
    private static void follow(Request request, Found found) {
        if (found.id != null && !found.id.equals(request.getRequestedSessionId())) {
            request.changeSessionId(found.id);
        }
    }

    // ---- for the other classes here ---------------------------------------------------------------------------

    /** All lines of a field as one dictionary; null: absent or malformed. */
    Map<String,Object> field(Request request, String name) {
        StringBuilder value = new StringBuilder();
        for (Enumeration<String> lines = request.getHeaders(name); lines.hasMoreElements();) {
            value.append(value.length() == 0 ? "" : ", ").append(lines.nextElement());
        }
        try {
            return value.length() == 0 ? null : Field.parse(value.toString());
        } catch (IllegalArgumentException e) {
            return null;
        }
    }

    boolean signed(byte[] mac, byte[] message) {
        return secret.signed(mac, message) || previousSecret != null && previousSecret.signed(mac, message);
    }

    SessionRecord recordOf(Session session) {
        SessionRecord record = SessionRecord.of(session);
        if (record == null) {
            record = SessionRecord.create(session);
            departed.watch(session);
        }
        return record;
    }

    Departed departed() {
        return departed;
    }

    SessionState.Unserialisable unserialisable() {
        return unserialisable;
    }

    void forged(String field) {
        if (saidForged.compareAndSet(false, true)) {
            LOG.warn("Session backup: ignored a " + field + " that is malformed or not signed with our secret; is secretFile "
                    + "the same as httpd's SessionHASecret? (said once)");
        }
    }

    /** A session that cannot be read fails with each of its responses: one line in a while is enough. */
    void failed(String what, Exception why) {
        long now = System.nanoTime();
        long last = saidFailed.get();
        if (now - last >= SILENCE_NS && saidFailed.compareAndSet(last, now)) {
            LOG.warn("Session backup: " + what + ": " + why.getMessage());
        }
        LOG.debug("Session backup", why);
    }

    /** Does httpd repeat what is said to be missing? */
    boolean saysMissing() {
        return "425".equals(missing);
    }

    void cannotRead(Session session) {
        if (saidUnreadable.compareAndSet(false, true)) {
            LOG.warn("Session backup: sessions of class " + session.getClass().getName() + " cannot be read (said once)");
        }
    }

    Log log() {
        return LOG;
    }

    /** The session a request names: its id without route, the id under which it is held, the session. */
    private static final class Found {
        final String base;
        final String id;
        final Session session;

        Found(String base, String id, Session session) {
            this.base = base;
            this.id = id;
            this.session = session;
        }
    }

    /** The value of Session-Backup-Accept is nearly always the same one: read it once. */
    private static final class Accepted {
        final String value;
        final long inlineMax;

        Accepted(String value, long inlineMax) {
            this.value = value;
            this.inlineMax = inlineMax;
        }
    }
}
