package org.sessionha;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Arrays;

import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

import org.apache.juli.logging.Log;

/**
 * One secret file, shared with httpd, and what it signs. The file is read again when it changes, so that a secret is
 * exchanged without a restart; a file that has become unusable leaves the old secret in force.
 */
final class Secret {

    private static final int LEAST_BYTES = 16;

    private final File file;
    private final Log log;
    private byte[] key;
    private long changed;
    private long length;

    Secret(File file, Log log) throws IOException {
        this.file = file;
        this.log = log;
        load();
    }

    /** Did the holder of this secret sign these bytes? The comparison takes the same time for every wrong answer. */
    boolean signed(byte[] mac, byte[] message) {
        try {
            Mac hmac = Mac.getInstance("HmacSHA256");
            hmac.init(new SecretKeySpec(current(), "HmacSHA256"));
            return MessageDigest.isEqual(hmac.doFinal(message), mac);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    static byte[] restoreMessage(String id, Version version, byte[] state) {
        byte[] head = ("restore\n" + id + '\n' + version.epoch + '\n' + version.seq + '\n')
                .getBytes(StandardCharsets.US_ASCII);
        ByteArrayOutputStream message = new ByteArrayOutputStream(head.length + state.length);
        message.write(head, 0, head.length);
        message.write(state, 0, state.length);
        return message.toByteArray();
    }

    static byte[] fetchMessage(String id, long seconds) {
        return ("fetch\n" + id + '\n' + seconds + '\n').getBytes(StandardCharsets.US_ASCII);
    }

    private synchronized byte[] current() {
        if (file.lastModified() != changed || file.length() != length) {
            try {
                load();
                log.info("Session backup: read the secret again from " + file);
            } catch (IOException e) {
                log.warn("Session backup: kept the old secret; " + e.getMessage());
            }
        }
        return key;
    }

    private synchronized void load() throws IOException {
        changed = file.lastModified();
        length = file.length();
        byte[] content;
        try {
            content = Files.readAllBytes(file.toPath());
        } catch (IOException e) {
            throw new IOException("the secret file " + file + " cannot be read (it must be readable for the user "
                    + System.getProperty("user.name") + "): " + e, e);
        }
        int from = 0;
        int to = content.length;
        while (from < to && isSpace(content[from])) {
            from++;
        }
        while (to > from && isSpace(content[to - 1])) {
            to--;
        }
        if (to - from < LEAST_BYTES) {
            throw new IOException("the secret in " + file + " has " + (to - from) + " bytes; at least " + LEAST_BYTES
                    + " are needed, for instance from: openssl rand -hex 32");
        }
        key = Arrays.copyOfRange(content, from, to);
    }

    private static boolean isSpace(byte b) {
        return b == ' ' || b >= 9 && b <= 13;
    }
}
