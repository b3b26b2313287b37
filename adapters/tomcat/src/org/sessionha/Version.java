package org.sessionha;

/** Which of two copies of a session is newer: the higher epoch, then the higher seq. */
final class Version implements Comparable<Version> {

    /** What a session has that was made here and never exported. */
    static final Version FIRST = new Version(1, 0);

    /** Counts the session's owners, from 1. */
    final long epoch;
    /** Counts the session's versions. */
    final long seq;

    Version(long epoch, long seq) {
        this.epoch = epoch;
        this.seq = seq;
    }

    @Override
    public int compareTo(Version other) {
        return epoch != other.epoch ? Long.compare(epoch, other.epoch) : Long.compare(seq, other.seq);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Version && compareTo((Version) other) == 0;
    }

    @Override
    public int hashCode() {
        return Long.hashCode(epoch * 31 + seq);
    }

    @Override
    public String toString() {
        return "epoch " + epoch + " seq " + seq;
    }
}
