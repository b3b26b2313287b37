package org.sessionha;

import org.apache.catalina.Context;

/** The names of the protocol, and the values that a member sends. */
final class Fields {

    static final String ACCEPT = "Session-Backup-Accept";
    static final String BACKUP = "Session-Backup";
    static final String FETCH = "Session-Backup-Fetch";
    static final String RESTORE = "Session-Restore";
    static final String MISSING = "Session-Missing";
    static final String WELL_KNOWN = "/.well-known/session-backup";
    static final int STATUS_MISSING = 425;

    private Fields() {
    }

    /** It is here, but has left: httpd moves it. */
    static String left(String id) {
        return missing(id) + ", left";
    }

    /** Asked to let it leave: how many requests are running. */
    static String leaving(String id, Version version, long ttl, int running) {
        return head(id, null, version, ttl) + ", running=" + running;
    }

    /** Where this web application answers for its sessions. */
    static String at(Context context) {
        return context.getEncodedPath() + WELL_KNOWN;
    }

    static String gone(String id) {
        return "id=" + Field.quote(id) + ", gone";
    }

    static String missing(String id) {
        return "id=" + Field.quote(id);
    }

    /** With the place, also where it is the default: so a restore goes ahead, and not beside the client's cookies. */
    static String inline(String id, String was, Version version, long ttl, String at, String base64) {
        return head(id, was, version, ttl) + ", at=" + Field.quote(at) + ", state=:" + base64 + ':';
    }

    static String announced(String id, String was, Version version, long ttl, String at, long size) {
        return head(id, was, version, ttl) + ", size=" + size + ", at=" + Field.quote(at);
    }

    static String fetched(String id, Version version, long ttl, long size) {
        return head(id, null, version, ttl) + ", size=" + size;
    }

    private static String head(String id, String was, Version version, long ttl) {
        return "id=" + Field.quote(id) + (was == null ? "" : ", was=" + Field.quote(was)) + ", epoch=" + version.epoch
                + ", seq=" + version.seq + ", ttl=" + ttl;
    }
}
