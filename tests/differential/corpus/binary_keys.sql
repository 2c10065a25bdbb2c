-- databases: bin
-- feature: binary keys
SELECT * FROM blobs ORDER BY bid; -- ordered
SELECT b.bid, f.v FROM blobs b JOIN fixed f ON f.bid = b.bid;
SELECT b.bid, f.v FROM blobs b LEFT JOIN fixed f ON f.v = b.v;
SELECT v, COUNT(*), MIN(bid), MAX(body) FROM blobs GROUP BY v ORDER BY v; -- ordered
SELECT bid FROM blobs UNION SELECT bid FROM fixed;
SELECT DISTINCT v FROM blobs;
SELECT bid FROM blobs WHERE bid IN (SELECT body FROM blobs);
SELECT bid, ROW_NUMBER() OVER (ORDER BY bid) FROM blobs;
INSERT INTO blobs VALUES (x'01', 1, NULL), (x'02', 2, 'b'), (x'03', 3, 'c');
UPDATE blobs SET v = 9 WHERE v = 1;
DELETE FROM fixed WHERE v < 2;
