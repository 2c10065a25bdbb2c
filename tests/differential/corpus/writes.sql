-- databases: rng hsh
-- feature: insert of many shards
INSERT INTO users (uid, name, grp) VALUES (11, 'n', 1), (111, 'n', 2), (2222, 'n', 3), (99999, NULL, NULL);
INSERT INTO small VALUES (11, 1, 'a'), (-11, 2, 'b'), (222, 3, 'c');
INSERT INTO small (uid) VALUES (11), (-11), (222);
INSERT INTO users (uid, name) VALUES (11, 'n'), (5, 'dup'), (2222, 'n'); -- error
INSERT INTO users (uid, name) VALUES (11, 'n'), (111, 'x'), (11, 'again'); -- error
INSERT IGNORE INTO users (uid, name) VALUES (11, 'n'), (5, 'dup'), (2222, 'n'), (500, 'dup');
INSERT INTO users SET uid = 12, name = 'set', score = 1.25;
INSERT INTO facts (uid, n, big, colour, doc) VALUES (1, 90, 1.5, 'green', '{"k": [1]}'), (300, 90, -1.5, 'Blue', 'null');
INSERT INTO small VALUES (11, 1, NULL), (40000, 1, NULL); -- error

-- feature: WITH before a change
WITH w AS (SELECT uid FROM orders WHERE total > 5) UPDATE users SET grp = 77 WHERE uid IN (SELECT uid FROM w); -- only mysql
WITH w AS (SELECT uid, COUNT(*) AS n FROM orders GROUP BY uid) UPDATE users JOIN w ON w.uid = users.uid SET users.grp = w.n; -- only mysql
WITH w AS (SELECT uid FROM orders), v AS (SELECT uid FROM w WHERE uid > 3) DELETE FROM users WHERE uid IN (SELECT uid FROM v) OR uid IN (SELECT -uid FROM w); -- only mysql
WITH w AS (SELECT grp, MAX(uid) AS top FROM users GROUP BY grp) DELETE u FROM users u JOIN w ON w.top = u.uid; -- only mysql
WITH w AS (SELECT uid FROM small) DELETE FROM o, l USING orders AS o JOIN levels AS l ON l.uid = o.uid WHERE o.uid IN (SELECT uid FROM w); -- only mysql
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) UPDATE small SET v = v + 10 WHERE uid IN (SELECT i FROM n); -- only mysql
WITH w AS (SELECT 5 AS uid) UPDATE users SET grp = 8 WHERE uid = 5 AND uid IN (SELECT uid FROM w); -- only mysql
WITH w AS (SELECT uid FROM users ORDER BY uid LIMIT 3) DELETE FROM users WHERE uid IN (SELECT uid FROM w); -- only mysql
WITH users AS (SELECT uid FROM orders) UPDATE small SET v = 1 WHERE uid IN (SELECT uid FROM users); -- only mysql

-- feature: a key that no shard owns, in rng
INSERT INTO users (uid, name) VALUES (6000000, 'nobody');
SELECT * FROM users WHERE uid = 6000000;
SELECT COUNT(*) FROM users WHERE uid BETWEEN 6000000 AND 6999999 OR uid = 5;
DELETE FROM users WHERE uid IN (6000000, 6999999, 5999999, 7000000);

-- feature: insert without a plain key
INSERT INTO users (uid, name) VALUES (5 + 6, 'sum'), (100 * 2, 'product');
INSERT INTO users (uid, name) VALUES (ABS(-13), 'abs');
INSERT INTO users (uid, grp) VALUES ((SELECT 14), 1);

-- feature: replace
REPLACE INTO users (uid, name) VALUES (5, 'five'), (11, 'new'), (500, 'fh');
REPLACE INTO orders VALUES (1, 1, 2, 'x', NULL), (100, 2, 3, 'y', NULL), (2000, 3, 4, 'z', NULL);
REPLACE INTO small SELECT uid, 4, NULL FROM users WHERE uid BETWEEN 0 AND 200;

-- feature: on duplicate key
INSERT INTO users (uid, name, grp) VALUES (5, 'x', 7), (11, 'y', 7), (500, 'z', 7) ON DUPLICATE KEY UPDATE grp = VALUES(grp);
INSERT INTO users (uid, grp) VALUES (5, 1), (6, 1), (7, 1), (100, 1) ON DUPLICATE KEY UPDATE score = 99, grp = grp + 10;
INSERT INTO small (uid, v) VALUES (1, 1), (42, 2), (255, 3) ON DUPLICATE KEY UPDATE v = v + VALUES(v);
INSERT INTO small (uid, v) SELECT uid, grp FROM users WHERE grp IS NOT NULL AND uid BETWEEN -100 AND 999 ON DUPLICATE KEY UPDATE v = VALUES(v);

-- feature: insert select
INSERT INTO audit (aid, uid, what) SELECT uid + 100000, uid, nick FROM users WHERE uid < 100000 AND uid > -10000;
INSERT INTO orders (uid, oid, total) SELECT uid, 77, score FROM users;
INSERT INTO orders (uid, oid, total) SELECT uid, oid + 1000, total FROM orders WHERE total IS NOT NULL;
INSERT INTO small (uid, v) SELECT grp + 3000, COUNT(*) FROM users WHERE grp IS NOT NULL GROUP BY grp;
INSERT INTO users (uid, grp) SELECT level + 7000, level FROM levels;
INSERT INTO users (uid, grp) SELECT uid + 7000, 1 FROM marks;
INSERT INTO settings (id, uid, name) SELECT 50 + grp, COUNT(*), CONCAT('g', grp) FROM users WHERE grp IS NOT NULL GROUP BY grp;
INSERT INTO levels (level, label) SELECT 100 + v, 'x' FROM small WHERE uid IN (1, 2, 42, 255) GROUP BY v;
INSERT INTO levels (level, uid) SELECT 90 + level, uid FROM levels;
INSERT INTO dims (id, uid, big) SELECT n + 20, uid, big FROM facts WHERE n > 30 ORDER BY uid LIMIT 2;
INSERT INTO users (uid, name) SELECT uid, 'dup' FROM orders; -- error
INSERT IGNORE INTO users (uid, nick) SELECT aid, what FROM audit;
INSERT INTO audit (aid, uid) SELECT u.uid + 50000, o.oid FROM users u JOIN orders o ON o.oid = u.grp WHERE u.uid BETWEEN 0 AND 8 AND o.uid < 5;
INSERT INTO audit SELECT 60000 + ROW_NUMBER() OVER (ORDER BY uid), uid, 'w' FROM users;

-- feature: update of many shards
UPDATE users SET grp = 9;
UPDATE users SET score = score + 1 WHERE grp = 1;
UPDATE users SET name = 'x', grp = grp + 1 WHERE score > 5;
UPDATE users SET grp = 1 WHERE grp = 1;
UPDATE users SET score = -score, nick = UPPER(nick) WHERE uid BETWEEN 0 AND 500;
UPDATE orders SET total = total * 1.1, state = 'done' WHERE state = 'paid';
UPDATE facts SET dbl = dbl / 2, doc = '[]', marks = 'x,b' WHERE colour = 'red';
UPDATE users SET grp = 5 WHERE uid IN (1, 5, 500, 2000);
UPDATE users SET score = 9999999 WHERE uid > 0; -- error
UPDATE IGNORE users SET nick = REPEAT('x', 3) WHERE grp = 2;

-- feature: update with order and limit
UPDATE users SET grp = 77 ORDER BY uid LIMIT 3;
UPDATE users SET grp = 77 ORDER BY score DESC, uid LIMIT 5;
UPDATE users SET grp = 77 WHERE grp = 1 ORDER BY uid DESC LIMIT 2;
UPDATE orders SET state = 'last' ORDER BY placed DESC, uid, oid LIMIT 4;
UPDATE users SET grp = 77 ORDER BY uid LIMIT 0;
UPDATE users SET grp = 77 ORDER BY name, uid LIMIT 100;

-- feature: update with a subquery
UPDATE users SET grp = 50 WHERE uid IN (SELECT uid FROM orders WHERE total > 10);
UPDATE users SET grp = 50 WHERE uid IN (SELECT uid FROM audit);
UPDATE users SET score = (SELECT COUNT(*) FROM orders WHERE orders.uid = users.uid);
UPDATE users SET score = (SELECT MAX(total) FROM orders) WHERE grp = 1;
UPDATE users u SET u.grp = 51 WHERE EXISTS (SELECT 1 FROM small s WHERE s.v = u.grp AND s.uid > 100);
UPDATE small SET v = 1 WHERE v > (SELECT AVG(oid) FROM orders WHERE uid < 3);
UPDATE levels SET label = 'used' WHERE level IN (SELECT grp FROM users);
UPDATE marks SET mark = 1 WHERE uid IN (SELECT uid FROM users WHERE score > 2);

-- feature: update joined
UPDATE users u JOIN orders o ON o.uid = u.uid SET u.grp = 60 WHERE o.total > 10;
UPDATE users u JOIN orders o ON o.uid = u.uid SET u.grp = 60, o.state = 'both' WHERE o.total > 20;
UPDATE users u JOIN audit a ON a.uid = u.uid SET u.grp = 61;
UPDATE users u JOIN audit a ON a.uid = u.uid SET a.what = 'j' WHERE u.score > 3;
UPDATE users u LEFT JOIN orders o ON o.uid = u.uid SET u.score = 0 WHERE o.uid IS NULL;
UPDATE users u JOIN levels l ON l.level = u.grp SET u.score = l.level;
UPDATE users u JOIN levels l ON l.level = u.grp SET l.label = 'u' WHERE u.score > 8;
UPDATE users u JOIN marks m ON m.uid = u.uid SET u.score = m.mark;
UPDATE users u, small s SET u.grp = 62 WHERE s.v = u.grp AND s.uid = 42;
UPDATE users u JOIN (SELECT uid, SUM(total) AS t FROM orders GROUP BY uid) d ON d.uid = u.uid SET u.score = d.t;

-- feature: update of the key
UPDATE users SET uid = 9999 WHERE uid = 5;
UPDATE users SET uid = 9999, grp = 4 WHERE uid = 5;
UPDATE users SET uid = 500 WHERE uid = 5; -- error
UPDATE users SET uid = 5 WHERE uid = 5;
UPDATE users SET uid = uid + 100000 WHERE uid BETWEEN 0 AND 8;
UPDATE orders SET uid = 300 WHERE oid = 3;
UPDATE orders SET uid = uid + 7000 WHERE total > 20;
UPDATE audit SET aid = aid + 200000 WHERE uid IS NULL;
UPDATE users SET uid = NULL WHERE uid = 5; -- error
UPDATE users SET uid = 7777 WHERE grp = 99;
UPDATE small SET uid = 31000 ORDER BY uid DESC LIMIT 1;
UPDATE users SET uid = 1500 WHERE uid = 999999;

-- feature: delete of many shards
DELETE FROM users;
DELETE FROM users WHERE grp = 1;
DELETE FROM orders WHERE total > 10 OR state IS NULL;
DELETE FROM users WHERE uid IN (1, 5, 500, 2000);
DELETE FROM users WHERE name = 'ann';
DELETE FROM users ORDER BY uid LIMIT 4;
DELETE FROM users WHERE score > 1 ORDER BY score, uid LIMIT 3;
DELETE FROM orders ORDER BY placed DESC, uid, oid LIMIT 2;
DELETE FROM users WHERE uid IN (SELECT uid FROM orders);
DELETE FROM users WHERE uid NOT IN (SELECT uid FROM audit WHERE uid IS NOT NULL);
DELETE FROM users WHERE score > (SELECT AVG(total) FROM orders);
DELETE FROM orders WHERE NOT EXISTS (SELECT 1 FROM facts WHERE facts.uid = orders.uid);
DELETE FROM levels WHERE level IN (SELECT grp FROM users);
TRUNCATE TABLE orders;

-- feature: delete joined
DELETE o FROM orders o JOIN users u ON u.uid = o.uid WHERE u.grp = 1;
DELETE u, o FROM users u JOIN orders o ON o.uid = u.uid WHERE o.total > 20;
DELETE a FROM audit a JOIN users u ON a.uid = u.uid;
DELETE u FROM users u LEFT JOIN orders o USING (uid) WHERE o.uid IS NULL;
DELETE FROM u USING users u JOIN levels l ON l.level = u.grp;
DELETE l FROM levels l JOIN users u ON u.grp = l.level WHERE u.score > 10;
DELETE m FROM marks m JOIN users u ON u.uid = m.uid;
DELETE users FROM users, small WHERE users.grp = small.v AND small.uid = 7;
