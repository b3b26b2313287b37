package org.sessionha;

import java.io.IOException;
import java.util.Base64;
import java.util.concurrent.TimeUnit;

import jakarta.servlet.http.HttpServletResponse;

import org.apache.catalina.Context;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.session.StandardSession;
import org.apache.catalina.util.SessionConfig;
import org.apache.coyote.Response;
import org.apache.tomcat.util.http.MimeHeaders;

/** One request whose response may carry a backup: which session it began with, and what is told at the end. */
final class Exchange {

    private static final String NOTE = "org.sessionha.exchange";

    /** An unchanged state is told again after this time, so that the backup does not expire before the session. */
    private static final long REFRESH_MS = 60_000;

    /** Connectors send 8 KB of head and no more; the rest is for what they add themselves. What does not fit is fetched. */
    private static final int HEAD_MAX = 8192 - 512;

    private final SessionBackupValve valve;
    private final Request request;
    private final Context context;
    private final Manager manager;
    private final Running running;
    private final int stopsAtStart;
    private final String ownRoute;
    private final long inlineMax;
    private final long beganAt = System.currentTimeMillis();

    /** The id, without route, that the client named; null: none that is held or was ended here. */
    private String baseAtStart;
    private Session sessionAtStart;
    private SessionRecord recordAtStart;
    private Version versionAtStart;
    private long accessedAtStart;
    private volatile boolean told;
    private SessionRecord.Visit visit;

    Exchange(SessionBackupValve valve, Request request, Running running, long inlineMax) {
        this.valve = valve;
        this.request = request;
        this.context = request.getContext();
        this.manager = context.getManager();
        this.running = running;
        this.stopsAtStart = running.stops();
        this.ownRoute = SessionIds.ownRoute(context);
        this.inlineMax = inlineMax;
    }

    static Exchange of(Request request) {
        return (Exchange) request.getNote(NOTE);
    }

    /** session: the one that the request names; null: it is not held. visit: to end when the request has told what it did, or null. */
    void begin(String base, Session session, SessionRecord.Visit visit) {
        request.setNote(NOTE, this);
        this.visit = visit;
        baseAtStart = base;
        if (session != null) {
            sessionAtStart = session;
            recordAtStart = valve.recordOf(session);
            versionAtStart = recordAtStart.version();
            accessedAtStart = session.getThisAccessedTimeInternal();
        }
    }

    /** The response is about to be committed: the last moment for a field. Never throws. */
    void beforeCommit() {
        if (told) {
            return;
        }
        told = true;
        tellNow();
        if (visit != null) {
            visit.end();
        }
    }

    private void tellNow() {
        Response response = request.getCoyoteRequest().getResponse();
        try {
            tell(response);
        } catch (IOException | RuntimeException e) {
            valve.failed("no backup with this response", e);
            if (hasStopped()) {
                refuse(response);
            }
        }
    }

    /**
     * The application has returned. If the response is committed by now, what happened since is for the next one. If the web
     * application is stopping, this is the last moment: its sessions end as soon as nobody is in it any more.
     */
    void returned(boolean hooked) {
        if (!told && (!hooked || hasStopped()) && !request.isAsync()
                && !request.getCoyoteRequest().getResponse().isCommitted()) {
            beforeCommit();
        } else if (told || !hooked) {
            Session session = current();
            if (session != null && touched(session)) {
                valve.recordOf(session).recheck();
            }
        }
    }

    private void tell(Response response) throws IOException {
        Session session = current();
        String base = session == null ? null : SessionIds.base(session.getIdInternal(), ownRoute);
        boolean ended = baseAtStart != null && valve.departed().why(context, baseAtStart) == Departed.Why.ENDED;
        if (session == null || !SessionIds.wellFormed(base)) {
            if (ended) {
                response.setHeader(Fields.BACKUP, Fields.gone(baseAtStart));
            } else if (session == null && hasStopped() && (sessionAtStart != null || beginsSession(response))) {
                refuse(response);
            }
            return;
        }
        if (!(session instanceof StandardSession)) {
            valve.cannotRead(session);
            return;
        }

        if (recordAtStart != null && recordAtStart.isReplaced()) {
            tellReplaced(response, (StandardSession) session, base);
            return;
        }
        SessionRecord record = valve.recordOf(session);
        boolean looked = record.takeRecheck();
        String was = was(session, record, base, ended);
        long now = System.currentTimeMillis();
        long refresh = Math.min(REFRESH_MS, TimeUnit.SECONDS.toMillis(SessionRecord.ttl(session)) / 4);
        if (was == null && !looked && !touched(session)) {
            return;
        }
        if (request.isAsync()) {
            record.recheck();
        }
        try {
            Version drawn = record.draw();
            SessionState state = SessionState.read((StandardSession) session, valve.unserialisable());
            if (was == null && session == sessionAtStart && record.isTold(state, versionAtStart, now, refresh)) {
                return;
            }
            Version version = record.numberOf(state, drawn);
            long ttl = SessionRecord.ttl(session);
            String at = Fields.at(context);
            String field = state.bytes.length > inlineMax ? null
                    : Fields.inline(base, was, version, ttl, at, Base64.getEncoder().encodeToString(state.bytes));
            boolean announce = field == null || field.length() + length(response) > HEAD_MAX;
            record.exported(version, base, state, announce, now);
            response.setHeader(Fields.BACKUP,
                    announce ? Fields.announced(base, was, version, ttl, at, state.bytes.length) : field);
        } catch (IOException | RuntimeException e) {
            record.recheck();
            throw e;
        }
    }

    /**
     * The session was taken away from here and came back while this request ran in the copy that it had begun with. What the
     * request did to that copy is lost, and httpd must not believe its answer: it is told as of the epoch it belongs to.
     */
    private void tellReplaced(Response response, StandardSession session, String base) throws IOException {
        SessionState state = SessionState.read(session, valve.unserialisable());
        Version version = recordAtStart.draw();
        long ttl = SessionRecord.ttl(session);
        String at = Fields.at(context);
        String field = state.bytes.length > inlineMax ? null
                : Fields.inline(base, null, version, ttl, at, Base64.getEncoder().encodeToString(state.bytes));
        response.setHeader(Fields.BACKUP, field == null || field.length() + length(response) > HEAD_MAX
                ? Fields.announced(base, null, version, ttl, at, state.bytes.length) : field);
    }

    private boolean hasStopped() {
        return running.stops() != stopsAtStart;
    }

    private boolean beginsSession(Response response) {
        String cookie = response.getMimeHeaders().getHeader("Set-Cookie");
        return cookie != null && cookie.startsWith(SessionConfig.getSessionCookieName(context) + '=');
    }

    /**
     * The web application has stopped under this request, and the session with it: what the answer acknowledges is nowhere.
     * What may be asked twice is asked again, of the member that the session goes on at.
     */
    private void refuse(Response response) {
        boolean again = baseAtStart != null && valve.saysMissing()
                && ("GET".equals(request.getMethod()) || "HEAD".equals(request.getMethod()));
        if (again) {
            response.setHeader(Fields.MISSING, Fields.missing(baseAtStart));
        }
        response.setStatus(again ? Fields.STATUS_MISSING : HttpServletResponse.SC_SERVICE_UNAVAILABLE);
    }

    /** The valid session of this request, without touching one that the application did not ask for. */
    private Session current() {
        String requested = request.getRequestedSessionId();
        if (requested != null) {
            Session session = null;
            try {
                session = manager.findSession(requested);
            } catch (IOException e) {
                valve.log().debug("Session backup: findSession", e);
            }
            if (session != null && session.isValid()) {
                return session;
            }
        }
        return request.getSessionInternal(false);
    }

    /** The id under which the backup is known, if it is not this one. */
    private String was(Session session, SessionRecord record, String base, boolean ended) {
        if (record.toldAs() != null && !record.toldAs().equals(base)) {
            return record.toldAs();
        }
        boolean renamed = session == sessionAtStart && baseAtStart != null && !baseAtStart.equals(base);
        return renamed || ended && !baseAtStart.equals(base) ? baseAtStart : null;
    }

    /** Did the application ask for it, here or (it may be) in a parallel request? */
    private boolean touched(Session session) {
        long accessed = session.getThisAccessedTimeInternal();
        return session != sessionAtStart || accessed != accessedAtStart || accessed >= beganAt;
    }

    /** Of the headers so far. */
    private static int length(Response response) {
        MimeHeaders headers = response.getMimeHeaders();
        int length = 0;
        for (int i = 0; i < headers.size(); i++) {
            length += headers.getName(i).getLength() + headers.getValue(i).getLength() + ": \r\n".length();
        }
        return length;
    }
}
