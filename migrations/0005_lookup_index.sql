-- Lookup indexes: names of any length that a file can give, and entries that are told from earlier ones of the same value.
-- `shardctl migrate` applies this file to every primary. A file that has been applied is never edited.

-- `version` is another number each time an entry is made: who has read an entry twice, and finds the same version, knows
-- that it was there all the time between.
SET @column_missing = (SELECT COUNT(*) = 0 FROM information_schema.columns WHERE table_schema = '_shardproxy' AND table_name = 'lookup' AND column_name = 'version');
SET @statement = IF(@column_missing, 'ALTER TABLE _shardproxy.lookup MODIFY index_name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, ADD COLUMN version BIGINT UNSIGNED NOT NULL DEFAULT 0', 'DO 0');
PREPARE alter_lookup FROM @statement;
EXECUTE alter_lookup;
DEALLOCATE PREPARE alter_lookup;

-- What is known of each lookup index, on the first shard of its keyspace. 'building': writes keep it up to date, but it
-- lacks rows that were there before; 'ready': it has them all, and statements are routed by it.
CREATE TABLE IF NOT EXISTS _shardproxy.lookup_index (
  keyspace   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  index_name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  state      ENUM('building', 'ready') CHARACTER SET ascii NOT NULL DEFAULT 'building',
  placement  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'of which map the entries are where they should be',
  progress   MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'JSON: shard to the primary key of the last row read, or true when all are',
  changed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (keyspace, index_name)
) ENGINE = InnoDB;
