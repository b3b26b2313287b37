-- The table of SessionHAStore dbd:..., for a user who may not make tables: run the part of your database once.
-- The user of the URL needs SELECT, INSERT, UPDATE and DELETE on it.
--   k        the key: a prefix and the digest of a session, never its id
--   expires  microseconds since 1970; 0: does not expire
--   value    base64; the state inside is sealed

-- MySQL, MariaDB
CREATE TABLE IF NOT EXISTS session_ha (
  k       VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  expires BIGINT NOT NULL,
  value   LONGTEXT CHARACTER SET ascii NOT NULL,
  KEY session_ha_expires (expires)
);

-- PostgreSQL
CREATE TABLE IF NOT EXISTS session_ha (
  k       VARCHAR(200) NOT NULL PRIMARY KEY,
  expires BIGINT NOT NULL,
  value   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS session_ha_expires ON session_ha (expires);

-- SQLite (3.24 or later)
CREATE TABLE IF NOT EXISTS session_ha (
  k       TEXT NOT NULL PRIMARY KEY,
  expires BIGINT NOT NULL,
  value   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS session_ha_expires ON session_ha (expires);
