-- databases: rng hsh
-- feature: join on the key
SELECT u.uid, o.oid, o.total FROM users u JOIN orders o ON o.uid = u.uid;
SELECT u.uid, o.oid FROM users u LEFT JOIN orders o ON o.uid = u.uid;
SELECT u.uid, o.oid FROM users u LEFT JOIN orders o ON o.uid = u.uid AND o.total > 10 WHERE u.score > 3;
SELECT u.uid, o.oid FROM orders o RIGHT JOIN users u USING (uid);
SELECT u.uid, s.v, f.n FROM users u JOIN small s USING (uid) JOIN facts f USING (uid);
SELECT u.uid, o.oid, f.n FROM users u JOIN orders o ON u.uid = o.uid LEFT JOIN facts f ON f.uid = o.uid AND f.n > 1;
SELECT * FROM users NATURAL JOIN orders;
SELECT u.uid FROM users u LEFT JOIN orders o ON o.uid = u.uid WHERE o.uid IS NULL;
SELECT a.aid, u.name FROM audit a JOIN users u ON a.aid = u.uid;
SELECT a.aid, u.name FROM audit a JOIN users u ON a.aid = u.uid AND a.uid = u.uid;

-- feature: join off the key
SELECT a.aid, u.uid FROM audit a JOIN users u ON a.uid = u.uid;
SELECT a.aid, u.uid FROM audit a LEFT JOIN users u ON a.uid = u.uid;
SELECT a.aid, u.uid FROM audit a RIGHT JOIN users u ON a.uid = u.uid;
SELECT u.uid, o.oid FROM users u JOIN orders o ON u.grp = o.oid;
SELECT u.uid, s.uid FROM users u JOIN small s ON u.grp = s.v WHERE u.score > 5;
SELECT u.uid, s.uid FROM users u JOIN small s ON u.name = CONVERT(s.name USING utf8mb4) COLLATE utf8mb4_general_ci;
SELECT a.uid, b.uid FROM users a JOIN users b ON a.score = b.score AND a.uid < b.uid;
SELECT u.uid, o.uid, o.oid FROM users u, orders o WHERE u.grp = o.oid AND o.total < 20;
SELECT u.uid, f.uid, f.n FROM users u JOIN facts f ON f.n = u.grp WHERE f.colour = 'red';
SELECT u.uid, a.aid, o.oid FROM users u JOIN audit a ON a.uid = u.uid JOIN orders o ON o.uid = a.aid;
SELECT u.uid, a.aid, l.level FROM users u LEFT JOIN audit a ON a.uid = u.uid LEFT JOIN levels l ON l.uid = a.aid;
SELECT COUNT(*) FROM users CROSS JOIN orders;
SELECT COUNT(*) FROM users a, users b, small c;
SELECT a.uid, b.uid FROM small a LEFT JOIN small b ON a.v = b.v AND b.uid > 100 WHERE a.uid < 10;
SELECT STRAIGHT_JOIN a.aid, s.v FROM audit a JOIN small s ON s.uid = a.uid;
SELECT u.uid, o.oid FROM users u JOIN orders o ON u.uid DIV 2 = o.uid;
SELECT u.uid, o.oid FROM users u JOIN orders o ON o.uid BETWEEN u.uid AND u.uid + 2 WHERE u.uid BETWEEN 0 AND 20;
SELECT u.uid, o.oid FROM users u LEFT JOIN (orders o JOIN small s ON s.v = o.oid) ON s.uid = u.uid;
SELECT h.uid, h.seq, u.uid FROM huge h JOIN users u ON u.grp = h.v;
SELECT f.uid, g.uid FROM facts f JOIN facts g ON f.colour = g.colour AND f.marks = g.marks AND f.uid < g.uid;
SELECT f.uid, f.n, g.uid, g.n FROM facts f JOIN facts g ON f.ci = g.ci WHERE f.uid <> g.uid;
SELECT f.uid, d.id FROM facts f LEFT JOIN dims d ON d.dbl = f.dbl;

-- feature: join with a reference table
SELECT u.uid, l.level FROM users u JOIN levels l ON l.uid = u.uid;
SELECT u.uid, l.level FROM users u LEFT JOIN levels l ON l.level = u.grp;
SELECT l.level, u.uid FROM levels l LEFT JOIN users u ON l.level = u.grp;
SELECT l.level, u.uid FROM levels l LEFT JOIN users u ON l.uid = u.uid;
SELECT l.level, COUNT(u.uid) FROM levels l LEFT JOIN users u ON l.level = u.grp GROUP BY l.level;
SELECT c.code, l.level, s.uid FROM countries c CROSS JOIN levels l JOIN small s ON s.v = l.level WHERE s.uid < 5;
SELECT d.id, f.uid, f.n FROM dims d RIGHT JOIN facts f ON d.colour = f.colour AND d.big < f.big;
SELECT d.id, f.uid FROM dims d LEFT JOIN facts f ON d.uid = f.uid AND f.n = 1 WHERE f.uid IS NULL;

-- feature: join with a single table
SELECT u.uid, m.mark FROM users u JOIN marks m ON m.uid = u.uid;
SELECT u.uid, m.mark FROM users u LEFT JOIN marks m ON m.uid = u.uid;
SELECT m.uid, m.mark, u.name FROM marks m LEFT JOIN users u USING (uid);
SELECT s.name, u.grp FROM settings s JOIN users u ON u.uid = s.uid;
SELECT s.name, m.mark FROM settings s LEFT JOIN marks m ON m.uid = s.uid;
SELECT s.id, l.label FROM settings s JOIN levels l ON l.level = s.id;
SELECT s.value, COUNT(*) FROM settings s JOIN orders o ON o.uid = s.uid GROUP BY s.value;

-- feature: join over keyspaces
SELECT a.uid, b.name FROM rng.users a JOIN hsh.users b ON a.uid = b.uid;
SELECT a.uid, b.oid FROM rng.users a LEFT JOIN hsh.orders b ON a.uid = b.uid;
SELECT COUNT(*) FROM rng.users a JOIN txt.items b ON a.nick = b.sku;
SELECT a.uid, t.tag FROM rng.users a JOIN txt.tags t ON a.grp = t.n;
