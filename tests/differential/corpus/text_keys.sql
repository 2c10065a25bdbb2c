-- databases: txt
-- feature: text keys
SELECT * FROM items ORDER BY sku; -- ordered
SELECT i.sku, s.place, s.qty FROM items i JOIN stock s ON s.sku = i.sku;
SELECT i.sku, s.place FROM items i LEFT JOIN stock s ON s.sku = i.sku ORDER BY i.sku, s.place; -- ordered
SELECT place, COUNT(*), SUM(qty) FROM stock GROUP BY place;
SELECT COUNT(*) FROM items GROUP BY title;
SELECT sku FROM items WHERE sku IN (SELECT sku FROM stock WHERE qty > 1);
SELECT sku FROM items UNION SELECT sku FROM stock;
SELECT sku FROM items EXCEPT SELECT tag FROM tags;
SELECT i.sku, t.tag FROM items i JOIN tags t ON t.sku = i.sku;
SELECT t.tag, i.sku FROM tags t LEFT JOIN items i ON i.sku = t.sku;
SELECT i.sku, n.body FROM items i JOIN notes n ON n.sku = i.sku;
SELECT sku, title FROM items ORDER BY title, sku LIMIT 8; -- ordered
SELECT MIN(sku), MAX(sku), COUNT(DISTINCT sku), GROUP_CONCAT(sku ORDER BY sku) FROM items;
SELECT code, n FROM codes ORDER BY n, code; -- ordered
SELECT n, COUNT(*), MAX(code) FROM codes GROUP BY n;
SELECT sku, ROW_NUMBER() OVER (ORDER BY sku) FROM items;
SELECT price, COUNT(*) FROM items GROUP BY price HAVING COUNT(*) > 1 ORDER BY price; -- ordered
SELECT LOWER(sku), COUNT(*) FROM items GROUP BY LOWER(sku);
SELECT DISTINCT price FROM items;
INSERT INTO items VALUES ('new1', 't', 1.5), ('new2', 'T', 2.5), ('new3', NULL, NULL);
UPDATE items SET price = price + 1 WHERE price > 2;
DELETE FROM stock WHERE qty IS NULL;
UPDATE items SET sku = 'moved' WHERE sku = 'abcdefgh';
INSERT INTO stock SELECT sku, 'x', 1 FROM items;
REPLACE INTO items (sku, price) VALUES ('a', 9), ('zz', 9);
DELETE i FROM items i JOIN stock s ON s.sku = i.sku WHERE s.qty = 2;
