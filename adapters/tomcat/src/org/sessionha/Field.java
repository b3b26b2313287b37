package org.sessionha;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A Structured Field dictionary (RFC 9651), read strictly and written. Strings become String, integers Long, booleans
 * Boolean, byte sequences byte[]; what the protocol has no use for (decimals, tokens, dates, display strings, inner
 * lists) is read, so that a future member can carry it, and stands in the map as an Object that is none of these.
 * Parameters are read and dropped. Anything malformed is an IllegalArgumentException and gives nothing.
 */
final class Field {

    /** A value of a kind that the protocol does not use. */
    private static final Object OTHER = new Object();

    private static final int MAX_NESTED = 1024;

    private final String text;
    private int at;

    private Field(String text) {
        this.text = text;
    }

    static Map<String,Object> parse(String text) {
        return new Field(text).dictionary();
    }

    static String string(Map<String,Object> field, String key) {
        Object value = field.get(key);
        return value instanceof String ? (String) value : null;
    }

    static long integer(Map<String,Object> field, String key, long otherwise) {
        Object value = field.get(key);
        return value instanceof Long ? ((Long) value).longValue() : otherwise;
    }

    static byte[] bytes(Map<String,Object> field, String key) {
        Object value = field.get(key);
        return value instanceof byte[] ? (byte[]) value : null;
    }

    static boolean flag(Map<String,Object> field, String key) {
        return Boolean.TRUE.equals(field.get(key));
    }

    /** The quoted form of a text that holds printable ASCII only. */
    static String quote(String text) {
        StringBuilder out = new StringBuilder(text.length() + 2).append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c < 0x20 || c > 0x7e) {
                throw new IllegalArgumentException("not printable ASCII");
            }
            if (c == '"' || c == '\\') {
                out.append('\\');
            }
            out.append(c);
        }
        return out.append('"').toString();
    }

    private Map<String,Object> dictionary() {
        Map<String,Object> members = new LinkedHashMap<>();
        skip(" ");
        while (at < text.length()) {
            String key = key();
            Object value = Boolean.TRUE;
            if (peek() == '=') {
                at++;
                value = peek() == '(' ? innerList() : item();
            }
            parameters();
            members.put(key, value);
            skip(" \t");
            if (at == text.length()) {
                return members;
            }
            expect(',');
            skip(" \t");
            if (at == text.length()) {
                throw malformed();
            }
        }
        return members;
    }

    private Object innerList() {
        List<Object> items = new ArrayList<>();
        expect('(');
        for (;;) {
            skip(" ");
            if (peek() == ')') {
                at++;
                return OTHER;
            }
            items.add(item());
            if (items.size() > MAX_NESTED) {
                throw malformed();
            }
            parameters();
            if (peek() != ' ' && peek() != ')') {
                throw malformed();
            }
        }
    }

    private void parameters() {
        while (peek() == ';') {
            at++;
            skip(" ");
            key();
            if (peek() == '=') {
                at++;
                item();
            }
        }
    }

    private String key() {
        int start = at;
        if (!isLower(peek()) && peek() != '*') {
            throw malformed();
        }
        while (isLower(peek()) || isDigit(peek()) || "_-.*".indexOf(peek()) >= 0) {
            at++;
        }
        return text.substring(start, at);
    }

    private Object item() {
        char c = peek();
        if (c == '"') {
            return quoted();
        } else if (c == ':') {
            return byteSequence();
        } else if (c == '?') {
            at++;
            char bit = take();
            if (bit != '0' && bit != '1') {
                throw malformed();
            }
            return Boolean.valueOf(bit == '1');
        } else if (c == '-' || isDigit(c)) {
            return number();
        } else if (c == '@') {
            at++;
            if (!(number() instanceof Long)) {
                throw malformed();
            }
            return OTHER;
        } else if (c == '%') {
            return displayString();
        } else if (isLower(c) || isUpper(c) || c == '*') {
            while (isLower(peek()) || isUpper(peek()) || isDigit(peek()) || ":/!#$%&'*+-.^_`|~".indexOf(peek()) >= 0) {
                at++;
            }
            return OTHER;
        }
        throw malformed();
    }

    private String quoted() {
        StringBuilder out = new StringBuilder();
        expect('"');
        for (;;) {
            char c = take();
            if (c == '"') {
                return out.toString();
            }
            if (c == '\\') {
                c = take();
                if (c != '"' && c != '\\') {
                    throw malformed();
                }
            } else if (c < 0x20 || c > 0x7e) {
                throw malformed();
            }
            out.append(c);
        }
    }

    private byte[] byteSequence() {
        expect(':');
        int end = text.indexOf(':', at);
        if (end < 0) {
            throw malformed();
        }
        byte[] bytes = Base64.getDecoder().decode(text.substring(at, end));
        at = end + 1;
        return bytes;
    }

    private Object number() {
        int start = at;
        if (peek() == '-') {
            at++;
        }
        int first = at;
        while (isDigit(peek())) {
            at++;
        }
        int digits = at - first;
        if (digits == 0 || digits > 15) {
            throw malformed();
        }
        if (peek() != '.') {
            return Long.valueOf(text.substring(start, at));
        }
        at++;
        int fraction = at;
        while (isDigit(peek())) {
            at++;
        }
        if (digits > 12 || at == fraction || at - fraction > 3) {
            throw malformed();
        }
        return OTHER;
    }

    private Object displayString() {
        ByteArrayOutputStream utf8 = new ByteArrayOutputStream();
        expect('%');
        expect('"');
        for (;;) {
            char c = take();
            if (c == '"') {
                break;
            }
            if (c < 0x20 || c > 0x7e) {
                throw malformed();
            }
            utf8.write(c == '%' ? hex() * 16 + hex() : c);
        }
        try {
            StandardCharsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(utf8.toByteArray()));
        } catch (java.nio.charset.CharacterCodingException e) {
            throw malformed();
        }
        return OTHER;
    }

    private int hex() {
        int digit = "0123456789abcdef".indexOf(take());
        if (digit < 0) {
            throw malformed();
        }
        return digit;
    }

    private void skip(String blanks) {
        while (at < text.length() && blanks.indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /** The next character; NUL at the end, which no rule above accepts. */
    private char peek() {
        return at < text.length() ? text.charAt(at) : 0;
    }

    private char take() {
        if (at == text.length()) {
            throw malformed();
        }
        return text.charAt(at++);
    }

    private void expect(char wanted) {
        if (take() != wanted) {
            throw malformed();
        }
    }

    private static boolean isDigit(char c) {
        return c >= '0' && c <= '9';
    }

    private static boolean isLower(char c) {
        return c >= 'a' && c <= 'z';
    }

    private static boolean isUpper(char c) {
        return c >= 'A' && c <= 'Z';
    }

    private IllegalArgumentException malformed() {
        return new IllegalArgumentException("malformed at byte " + at);
    }
}
