package org.sessionha;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.LinkedHashSet;
import java.util.Set;

import org.apache.catalina.Container;
import org.apache.catalina.Context;
import org.apache.catalina.Engine;

/**
 * Ids with and without route. The client's id is BASE.route; the protocol speaks of BASE only. BASE may hold dots and
 * whatever else a session manager puts there (-n2). An Engine without jvmRoute has no routes: the whole id is BASE.
 */
final class SessionIds {

    static final int MAX_LENGTH = 256;

    private static final int MAX_BASES = 4;

    private SessionIds() {
    }

    /** The jvmRoute of the Engine above, or null. */
    static String ownRoute(Context context) {
        Container container = context;
        while (container != null && !(container instanceof Engine)) {
            container = container.getParent();
        }
        return container == null ? null : ((Engine) container).getJvmRoute();
    }

    /** BASE of an id as a client or a manager has it: less this member's route, else less what follows the last dot. */
    static String base(String id, String ownRoute) {
        if (ownRoute == null || ownRoute.isEmpty()) {
            return id;
        }
        if (id.length() > ownRoute.length() + 1 && id.endsWith('.' + ownRoute)) {
            return id.substring(0, id.length() - ownRoute.length() - 1);
        }
        int dot = id.lastIndexOf('.');
        return dot > 0 ? id.substring(0, dot) : id;
    }

    /** What BASE may be if routes or ids hold dots: the likeliest first. */
    static Set<String> bases(String id, String ownRoute) {
        Set<String> bases = new LinkedHashSet<>();
        bases.add(base(id, ownRoute));
        if (ownRoute != null && !ownRoute.isEmpty()) {
            for (int dot = id.lastIndexOf('.'); dot > 0 && bases.size() < MAX_BASES; dot = id.lastIndexOf('.', dot - 1)) {
                bases.add(id.substring(0, dot));
            }
            bases.add(id);
        }
        return bases;
    }

    /** The id that this member gives a session. */
    static String full(String base, String ownRoute) {
        return ownRoute == null || ownRoute.isEmpty() ? base : base + '.' + ownRoute;
    }

    /** What may stand in a field: printable ASCII but space, quote, backslash, comma and semicolon. */
    static boolean wellFormed(String base) {
        if (base == null || base.isEmpty() || base.length() > MAX_LENGTH) {
            return false;
        }
        for (int i = 0; i < base.length(); i++) {
            char c = base.charAt(i);
            if (c <= 0x20 || c > 0x7e || c == '"' || c == '\\' || c == ',' || c == ';') {
                return false;
            }
        }
        return true;
    }

    /** For the log, which never sees an id. */
    static String digest(String base) {
        try {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(base.getBytes(StandardCharsets.UTF_8));
            StringBuilder hex = new StringBuilder("sha256:");
            for (int i = 0; i < 6; i++) {
                hex.append(Character.forDigit(sum[i] >> 4 & 15, 16)).append(Character.forDigit(sum[i] & 15, 16));
            }
            return hex.toString();
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }
}
