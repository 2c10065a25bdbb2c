-- databases: rng hsh
-- feature: subquery EXISTS
SELECT uid FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.uid = u.uid);
SELECT uid FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.uid = u.uid AND o.total > 10);
SELECT uid FROM users u WHERE EXISTS (SELECT 1 FROM audit a WHERE a.uid = u.uid);
SELECT uid FROM users u WHERE NOT EXISTS (SELECT * FROM audit a WHERE a.uid = u.uid);
SELECT uid FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE total > 39);
SELECT uid FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE total > 3900);
SELECT aid FROM audit a WHERE EXISTS (SELECT 1 FROM small s WHERE s.v = a.aid % 5 AND s.uid > a.uid);
SELECT level FROM levels l WHERE EXISTS (SELECT 1 FROM users u WHERE u.grp = l.level);
SELECT level FROM levels l WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.grp = l.level);
SELECT uid FROM users u WHERE EXISTS (SELECT 1 FROM marks m WHERE m.uid = u.uid) OR u.grp = 3;

-- feature: subquery IN
SELECT uid, name FROM users WHERE uid IN (SELECT uid FROM orders WHERE state = 'paid');
SELECT uid FROM users WHERE uid NOT IN (SELECT uid FROM orders);
SELECT uid FROM users WHERE uid NOT IN (SELECT uid FROM audit);
SELECT uid FROM users WHERE uid IN (SELECT uid FROM audit WHERE aid > 0);
SELECT oid FROM orders WHERE oid IN (SELECT grp FROM users);
SELECT oid FROM orders WHERE oid NOT IN (SELECT grp FROM users WHERE grp IS NOT NULL);
SELECT uid FROM users WHERE (uid, grp) IN (SELECT uid, v FROM small);
SELECT uid FROM users WHERE grp IN (SELECT level FROM levels WHERE label = 'low');
SELECT level FROM levels WHERE level IN (SELECT grp FROM users);
SELECT level FROM levels WHERE uid IN (SELECT uid FROM orders);
SELECT uid FROM users WHERE uid IN (SELECT a.uid FROM audit a JOIN orders o ON o.uid = a.aid);
SELECT uid FROM users WHERE uid IN (SELECT uid FROM orders GROUP BY uid HAVING COUNT(*) > 1);
SELECT uid FROM users WHERE uid IN (SELECT uid FROM orders UNION SELECT aid FROM audit);
SELECT uid, uid IN (SELECT uid FROM orders) AS has FROM users;
SELECT uid, grp NOT IN (SELECT v FROM small WHERE uid < 5) AS has FROM users;
SELECT name FROM settings WHERE uid IN (SELECT uid FROM marks);
DELETE FROM orders WHERE uid NOT IN (SELECT uid FROM users WHERE grp = 1);

-- feature: subquery ANY and ALL
SELECT uid FROM users WHERE score > ALL (SELECT total FROM orders WHERE total < 8);
SELECT uid FROM users WHERE score > ANY (SELECT total FROM orders);
SELECT uid FROM users WHERE grp = ANY (SELECT v FROM small WHERE uid > 50);
SELECT uid FROM users WHERE grp <> ALL (SELECT v FROM small WHERE uid > 50 AND v < 2);
SELECT uid FROM users WHERE score >= ALL (SELECT score FROM users WHERE score IS NOT NULL);
SELECT uid FROM users u WHERE score < SOME (SELECT total FROM orders o WHERE o.uid = u.uid);

-- feature: subquery scalar
SELECT uid, (SELECT COUNT(*) FROM orders o WHERE o.uid = u.uid) AS n FROM users u;
SELECT uid, (SELECT SUM(total) FROM orders o WHERE o.uid = u.uid) AS n FROM users u ORDER BY n DESC, uid; -- ordered
SELECT uid, (SELECT COUNT(*) FROM audit a WHERE a.uid = u.uid) AS n FROM users u;
SELECT uid, (SELECT MAX(total) FROM orders) FROM users;
SELECT uid FROM users WHERE score = (SELECT MAX(score) FROM users);
SELECT uid FROM users WHERE score > (SELECT AVG(score) FROM users);
SELECT uid FROM users u WHERE score > (SELECT AVG(score) FROM users v WHERE v.grp = u.grp);
SELECT uid FROM users WHERE uid = (SELECT MIN(uid) FROM orders WHERE total > 20);
SELECT (SELECT COUNT(*) FROM users) AS a, (SELECT COUNT(*) FROM orders) AS b;
SELECT (SELECT COUNT(*) FROM users) + (SELECT SUM(total) FROM orders);
SELECT level, (SELECT COUNT(*) FROM users WHERE grp = level) FROM levels;
SELECT uid, (SELECT o.total FROM orders o WHERE o.uid = u.uid ORDER BY o.oid LIMIT 1) FROM users u;
SELECT grp, COUNT(*) FROM users GROUP BY grp HAVING COUNT(*) > (SELECT AVG(c) FROM (SELECT COUNT(*) AS c FROM users GROUP BY grp) AS d);
SELECT uid FROM users ORDER BY (SELECT COUNT(*) FROM orders WHERE orders.uid = users.uid) DESC, uid LIMIT 5; -- ordered
SELECT (SELECT uid FROM users); -- error
SELECT uid, (SELECT name FROM users v WHERE v.grp = u.grp) FROM users u; -- error
SELECT CASE WHEN EXISTS (SELECT 1 FROM users WHERE grp = 9) THEN 'y' ELSE 'n' END;
SELECT uid, COALESCE((SELECT what FROM audit a WHERE a.aid = u.uid), 'none') FROM users u;

-- feature: derived table
SELECT * FROM (SELECT uid, grp FROM users) AS d;
SELECT d.grp, d.n FROM (SELECT grp, COUNT(*) AS n FROM users GROUP BY grp) AS d WHERE d.n > 5;
SELECT MAX(n) FROM (SELECT uid, COUNT(*) AS n FROM orders GROUP BY uid) AS d;
SELECT u.uid, d.n FROM users u JOIN (SELECT uid, COUNT(*) AS n FROM orders GROUP BY uid) AS d ON d.uid = u.uid;
SELECT u.uid, d.s FROM users u LEFT JOIN (SELECT uid, SUM(total) AS s FROM orders GROUP BY uid) AS d ON d.uid = u.uid;
SELECT AVG(score) FROM (SELECT score FROM users ORDER BY uid LIMIT 7) AS d;
SELECT * FROM (SELECT uid FROM users ORDER BY score DESC, uid LIMIT 3) AS d JOIN orders USING (uid);
SELECT COUNT(*) FROM (SELECT DISTINCT grp, score FROM users) AS d;
SELECT d.k, COUNT(*) FROM (SELECT uid % 3 AS k FROM users UNION ALL SELECT oid % 3 FROM orders) AS d GROUP BY d.k;
SELECT a.grp, a.n, b.n FROM (SELECT grp, COUNT(*) AS n FROM users GROUP BY grp) AS a JOIN (SELECT v, COUNT(*) AS n FROM small GROUP BY v) AS b ON a.grp = b.v;
SELECT x.uid FROM (SELECT * FROM (SELECT uid, score FROM users WHERE grp > 0) AS y WHERE score > 3) AS x;
SELECT u.uid, l.n FROM users u JOIN LATERAL (SELECT COUNT(*) AS n FROM orders o WHERE o.uid = u.uid) AS l; -- only mysql
SELECT u.uid, l.total FROM users u LEFT JOIN LATERAL (SELECT o.total FROM orders o WHERE o.uid = u.uid ORDER BY o.oid LIMIT 1) AS l ON TRUE; -- only mysql
SELECT u.uid, l.n FROM users u JOIN LATERAL (SELECT COUNT(*) AS n FROM audit a WHERE a.uid = u.uid) AS l ON l.n > 0; -- only mysql

-- feature: WITH
WITH d AS (SELECT uid, score FROM users WHERE grp = 1) SELECT * FROM d;
WITH d AS (SELECT grp, COUNT(*) AS n FROM users GROUP BY grp) SELECT * FROM d ORDER BY grp; -- ordered
WITH d AS (SELECT grp, COUNT(*) AS n FROM users GROUP BY grp) SELECT a.grp, b.n FROM d a JOIN d b ON a.grp = b.grp;
WITH a AS (SELECT uid FROM orders WHERE total > 10), b AS (SELECT DISTINCT uid FROM a) SELECT COUNT(*) FROM b;
WITH d (k, n) AS (SELECT v, COUNT(*) FROM small GROUP BY v) SELECT u.uid, d.n FROM users u JOIN d ON d.k = u.grp;
WITH d AS (SELECT uid FROM users) SELECT uid FROM d UNION SELECT uid FROM orders;
SELECT * FROM users WHERE uid IN (WITH d AS (SELECT uid FROM orders) SELECT uid FROM d);

-- feature: WITH RECURSIVE
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n;
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i, COUNT(uid) FROM n LEFT JOIN users ON grp = i GROUP BY i;
WITH RECURSIVE r AS (SELECT aid, uid, 0 AS d FROM audit WHERE uid IS NULL UNION ALL SELECT a.aid, a.uid, r.d + 1 FROM audit a JOIN r ON a.uid = r.aid WHERE r.d < 5) SELECT * FROM r;
WITH RECURSIVE r AS (SELECT aid, uid FROM audit WHERE aid = 0 UNION SELECT a.aid, a.uid FROM audit a JOIN r ON a.aid = r.uid) SELECT * FROM r;
WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i, (SELECT COUNT(*) FROM users WHERE uid % 10 = i) FROM n ORDER BY i; -- ordered

-- feature: subquery that runs first
SELECT uid, name FROM users WHERE uid IN (SELECT aid FROM audit WHERE what IS NOT NULL) ORDER BY uid; -- ordered
SELECT uid FROM users WHERE uid IN (SELECT DISTINCT oid FROM orders) AND grp IS NOT NULL;
SELECT COUNT(*), SUM(score) FROM users WHERE grp IN (SELECT v FROM small);
SELECT grp, COUNT(*) FROM users WHERE score IN (SELECT total FROM orders) GROUP BY grp;
SELECT uid FROM users WHERE score NOT IN (SELECT total FROM orders WHERE total IS NOT NULL);
SELECT uid FROM users WHERE score NOT IN (SELECT total FROM orders);
SELECT uid FROM users WHERE grp NOT IN (SELECT v FROM small WHERE v > 1000);
SELECT uid, grp FROM users WHERE grp IN (SELECT v FROM small WHERE v > 1000);
SELECT uid FROM users WHERE grp IN (SELECT grp FROM users WHERE grp IS NULL);
SELECT uid FROM users WHERE born IN (SELECT born FROM users WHERE grp = 1) AND uid > 0;
SELECT uid FROM users WHERE born = (SELECT MAX(born) FROM users);
SELECT uid FROM users WHERE born >= (SELECT MIN(born) FROM users WHERE grp = 2) AND born BETWEEN '1000-01-01' AND '2990-01-01';
SELECT uid, oid FROM orders WHERE placed IN (SELECT placed FROM orders WHERE oid < 3);
SELECT uid, oid FROM orders WHERE placed > (SELECT MIN(placed) FROM orders) ORDER BY uid, oid LIMIT 7; -- ordered
SELECT uid FROM users WHERE name IN (SELECT name FROM users WHERE grp = 1);
SELECT uid FROM users WHERE name = (SELECT MAX(name) FROM users);
SELECT uid FROM users WHERE name <> (SELECT MIN(u.name) FROM users u WHERE u.grp > 1);
SELECT uid FROM users WHERE nick NOT IN (SELECT nick FROM users u WHERE u.grp = 2 AND u.nick IS NOT NULL);
SELECT uid FROM users WHERE nick IN (SELECT what FROM audit);
SELECT aid FROM audit WHERE what IN (SELECT what FROM audit WHERE aid < 5);
SELECT uid FROM users WHERE uid = (SELECT MAX(uid) FROM orders);
SELECT uid FROM users WHERE uid >= (SELECT COUNT(*) FROM orders) ORDER BY uid DESC; -- ordered
SELECT uid FROM users WHERE score > (SELECT SUM(v) FROM small WHERE v < 3);
SELECT uid FROM users WHERE grp <=> (SELECT MAX(v) FROM small WHERE v > 1000);
SELECT uid FROM users WHERE grp = (SELECT v FROM small WHERE uid = 1);
SELECT uid FROM users WHERE grp = (SELECT v FROM small); -- error
SELECT uid FROM users WHERE grp = (SELECT v FROM small WHERE uid = -999);
SELECT uid, seq FROM huge WHERE uid IN (SELECT uid FROM users);
SELECT uid FROM users WHERE uid IN (SELECT uid FROM huge);
SELECT uid FROM huge WHERE uid = (SELECT MAX(uid) FROM huge);
SELECT uid FROM users WHERE uid IN (SELECT uid FROM marks WHERE mark > 0) AND NOT EXISTS (SELECT 1 FROM audit WHERE aid < -99999);
SELECT uid FROM users u WHERE EXISTS (SELECT * FROM audit WHERE aid > 0) AND u.grp IN (1, 2);
SELECT u.uid, o.oid FROM users u JOIN orders o ON o.uid = u.uid WHERE u.grp IN (SELECT v FROM small WHERE uid > 0) AND o.total > (SELECT MIN(total) FROM orders);
SELECT u.uid FROM users u LEFT JOIN orders o ON o.uid = u.uid WHERE o.oid NOT IN (SELECT s.v FROM small s WHERE s.uid > 1);
SELECT uid FROM users WHERE uid IN (SELECT level FROM levels) AND uid NOT IN (SELECT aid FROM audit);
SELECT level FROM levels WHERE level IN (SELECT grp FROM users WHERE uid > 3);
SELECT uid, n FROM facts WHERE big IN (SELECT big FROM facts WHERE n = 1);
SELECT uid, n FROM facts WHERE ubig = (SELECT MAX(ubig) FROM facts);
SELECT uid, n FROM facts WHERE ubig IN (SELECT uid FROM users WHERE uid < 3);
SELECT uid, n FROM facts WHERE ci IN (SELECT ci FROM facts WHERE n < 3);
SELECT DISTINCT grp FROM users WHERE uid NOT IN (SELECT uid FROM audit WHERE uid IS NOT NULL) ORDER BY grp LIMIT 3; -- ordered
SELECT uid FROM users WHERE uid IN (SELECT uid FROM audit WHERE uid IS NOT NULL LIMIT 3); -- error
SELECT uid FROM users WHERE nothing IN (SELECT aid FROM audit); -- error
SELECT uid FROM users WHERE uid IN (SELECT nothing FROM audit); -- error
SELECT uid FROM users WHERE uid IN (SELECT aid, uid FROM audit); -- error
-- session
SET NAMES latin1;
SELECT uid FROM users WHERE name IN (SELECT name FROM users WHERE grp = 1);
SET NAMES utf8mb4;
START TRANSACTION;
SELECT uid FROM users WHERE uid IN (SELECT aid FROM audit WHERE what IS NOT NULL);
DELETE FROM users WHERE uid = (SELECT MAX(uid) FROM orders);
SELECT uid FROM users WHERE uid = (SELECT MAX(uid) FROM users);
SELECT uid FROM users WHERE grp IN (SELECT v FROM small WHERE v > 0) AND EXISTS (SELECT 1 FROM users WHERE grp = 1);
ROLLBACK;
SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES';
SELECT uid FROM users WHERE name IN (SELECT name FROM users WHERE name <> 'a\') AND born IN (SELECT born FROM users);
-- end
SELECT grp, COUNT(*) FROM users WHERE grp = (SELECT MAX(v) FROM small); -- only mysql, error
SELECT DISTINCT uid FROM users WHERE grp = (SELECT MAX(v) FROM small) ORDER BY grp, uid; -- only mysql, error
SELECT grp, COUNT(*) FROM users WHERE grp = (SELECT MAX(v) FROM small) GROUP BY grp;
