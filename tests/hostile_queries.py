"""Queries that a model might write, harmless and hostile, with the outcome that each must have."""

from tests.shop import SHOP

WAREHOUSE = f"""{SHOP}
CREATE TABLE "Größe" ("Länge" REAL, "a;b" TEXT);
INSERT INTO "Größe" VALUES (1.5, 'x -- y'), (2.5, '/* z'), (NULL, '数据');
CREATE INDEX by_name ON product (name);
CREATE VIEW tool AS SELECT * FROM product WHERE category = 'tool';
CREATE VIRTUAL TABLE note USING fts5 (body);
INSERT INTO note VALUES ('a sharp saw'), ('a blunt nail');
CREATE VIRTUAL TABLE box USING rtree (id, low, high);
INSERT INTO box VALUES (1, 0, 1);
"""


def endless(body: str, columns: str = "n") -> str:
    return f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT {columns} FROM c {body}"


def counting(last: int) -> str:
    return f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {last}) SELECT n FROM c"


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return f"SELECT {opening * depth}{inner}{closing * depth}"


def doubling(levels: int) -> str:
    """Every WITH table reads the one before twice: 2 ** levels subqueries, made while the query is prepared."""
    tables = [f"c{i} AS (SELECT 1 FROM c{i - 1} x, c{i - 1} y)" for i in range(1, levels)]
    return f"WITH c0 AS (SELECT 1), {', '.join(tables)} SELECT * FROM c{levels - 1}"


def listed(items: object, separator: str = ", ") -> str:
    return separator.join(map(str, items))


# files that a statement would write are named planted…; FOLDER is the database's own folder
WRITES = [
    ("insert", "INSERT INTO product (id) VALUES (9)", "denied"),
    ("insert default", "INSERT INTO product DEFAULT VALUES", "denied"),
    ("insert select", "INSERT INTO product SELECT id + 10, name, 1, 'x' FROM product", "denied"),
    ("insert or replace", "INSERT OR REPLACE INTO product (id) VALUES (1)", "denied"),
    ("replace into", "REPLACE INTO product (id, name) VALUES (1, 'x')", "denied"),
    ("upsert", "INSERT INTO product (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'", "denied"),
    ("insert returning", "INSERT INTO product (id) VALUES (9) RETURNING id", "denied"),
    ("update", "UPDATE product SET name = 'x'", "denied"),
    ("update from", 'UPDATE product SET name = o.day FROM "order" AS o WHERE o.product_id = product.id', "denied"),
    ("update returning", "UPDATE product SET name = 'x' RETURNING *", "denied"),
    ("delete", "DELETE FROM product", "denied"),
    ("delete returning", "DELETE FROM product WHERE id = 1 RETURNING name", "denied"),
    ("delete limit", "DELETE FROM product ORDER BY id LIMIT 1", "denied"),
    ("cte delete", "WITH t AS (SELECT 1 AS a) DELETE FROM product WHERE id IN (SELECT a FROM t)", "denied"),
    ("cte insert", "WITH t AS (SELECT 9 AS a) INSERT INTO product (id) SELECT a FROM t", "denied"),
    ("cte update", "WITH t AS (SELECT 1 AS a) UPDATE product SET name = (SELECT a FROM t)", "denied"),
    ("hidden delete", "/* SELECT */ -- SELECT\n DeLeTe /**/ FROM product", "denied"),
    ("insert full text", "INSERT INTO note (note) VALUES ('optimize')", "denied"),
    ("insert rtree", "INSERT INTO box VALUES (2, 0, 1)", "denied"),
    ("delete shadow table", "DELETE FROM note_data", "denied"),
    ("update master", "UPDATE sqlite_master SET sql = ''", "error"),
    ("delete master", "DELETE FROM sqlite_master", "error"),
    ("insert master", "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (a)')", "denied"),
    ("delete temp master", "DELETE FROM sqlite_temp_master", "error"),
    ("update view", "UPDATE tool SET name = 'x'", "error"),
    ("select into", "SELECT * INTO planted FROM product", "error"),
]
DEFINITIONS = [
    ("create table", "CREATE TABLE t (a)", "denied"),
    ("create table as", "CREATE TABLE t AS SELECT * FROM product", "denied"),
    ("create table if not exists", "CREATE TABLE IF NOT EXISTS product (a)", "denied"),
    ("create temp table", "CREATE TEMP TABLE t (a)", "denied"),
    ("create temp table as", "CREATE TEMPORARY TABLE t AS SELECT 1", "denied"),
    ("create index", "CREATE UNIQUE INDEX i ON product (name)", "denied"),
    ("create view", "CREATE VIEW v AS SELECT 1", "denied"),
    ("create temp view", "CREATE TEMP VIEW v AS SELECT 1", "denied"),
    ("create trigger", "CREATE TRIGGER g AFTER INSERT ON product BEGIN SELECT 1; END", "denied"),
    ("create temp trigger", "CREATE TEMP TRIGGER g AFTER INSERT ON product BEGIN SELECT 1; END", "denied"),
    ("create fts5", "CREATE VIRTUAL TABLE t USING fts5 (a)", "denied"),
    ("create fts4", "CREATE VIRTUAL TABLE t USING fts4 (a)", "denied"),
    ("create rtree", "CREATE VIRTUAL TABLE temp.t USING rtree (a, b, c)", "denied"),
    ("rename table", "ALTER TABLE product RENAME TO goods", "denied"),
    ("add column", "ALTER TABLE product ADD COLUMN x", "denied"),
    ("drop column", "ALTER TABLE product DROP COLUMN category", "denied"),
    ("drop table", "DROP TABLE product", "denied"),
    ("drop table if exists", "DROP TABLE IF EXISTS product", "denied"),
    ("drop nothing", "DROP TABLE IF EXISTS nowhere", "not_a_query"),
    ("drop view", "DROP VIEW tool", "denied"),
    ("drop index", "DROP INDEX by_name", "denied"),
    ("drop full text", "DROP TABLE note", "denied"),
    ("reindex", "REINDEX", "denied"),
    ("reindex table", "REINDEX product", "denied"),
    ("analyze", "ANALYZE", "denied"),
    ("analyze table", "ANALYZE product", "denied"),
]
WAYS_OUT = [
    ("attach", "ATTACH 'planted.sqlite' AS other", "denied"),
    ("attach in folder", "ATTACH DATABASE 'FOLDER/planted.sqlite' AS other", "denied"),
    ("attach memory", "ATTACH ':memory:' AS other", "denied"),
    ("attach writable", "ATTACH 'file:FOLDER/shop.sqlite?mode=rw' AS other", "denied"),
    ("detach", "DETACH main", "denied"),
    ("vacuum", "VACUUM", "denied"),
    ("vacuum into", "VACUUM INTO 'planted.sqlite'", "denied"),
    ("vacuum into folder", "VACUUM main INTO 'FOLDER/planted.sqlite'", "denied"),
    ("begin", "BEGIN", "denied"),
    ("begin immediate", "BEGIN IMMEDIATE TRANSACTION", "denied"),
    ("commit", "COMMIT", "denied"),
    ("end", "END", "denied"),
    ("rollback", "ROLLBACK", "denied"),
    ("savepoint", "SAVEPOINT s", "denied"),
    ("release", "RELEASE s", "denied"),
    ("load_extension", "SELECT load_extension('planted.so')", "denied"),
    ("load_extension in a view of rows", "SELECT name, LOAD_EXTENSION(name, 'x') FROM product", "denied"),
    ("fts3_tokenizer", "SELECT fts3_tokenizer('simple')", "denied"),
    ("fts3_tokenizer pointer", "SELECT hex(fts3_tokenizer('simple', x'0000000000000000'))", "denied"),
    ("readfile", "SELECT readfile('/etc/passwd')", "error"),
    ("writefile", "SELECT writefile('planted.txt', 'x')", "error"),
    ("edit", "SELECT edit('x', 'touch planted.txt')", "error"),
    ("eval", "SELECT eval('DELETE FROM product')", "error"),
    ("other files of the process", "SELECT * FROM pragma_database_list", "denied"),
    ("pages of the file", "SELECT * FROM dbstat", "denied"),
    ("statements of the connection", "SELECT * FROM sqlite_stmt", "denied"),
    ("compile options", "SELECT * FROM pragma_compile_options", "denied"),
    ("dot command", ".shell touch planted.txt", "error"),
]
PRAGMAS = [
    ("writable_schema", "PRAGMA writable_schema = 1", "denied"),
    ("journal_mode", "PRAGMA journal_mode = WAL", "denied"),
    ("temp_store_directory", "PRAGMA temp_store_directory = 'FOLDER'", "denied"),
    ("cell_size_check", "PRAGMA cell_size_check = 1", "denied"),
    ("table_info", "PRAGMA table_info(product)", "denied"),
    ("hard_heap_limit", "PRAGMA hard_heap_limit = 0", "denied"),
    ("query_only", "PRAGMA main.query_only = 0", "denied"),
    ("pragma after a comment", "-- x\n/* y */ PRAGMA user_version = 5", "denied"),
    ("pragma in mixed case", "pRaGmA table_info(product)", "denied"),
    ("pragma after a byte order mark", "\ufeffPRAGMA table_info(product)", "denied"),
    ("pragma after comment and mark", "/* x */\ufeff PRAGMA hard_heap_limit", "denied"),
    ("pragma wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)", "denied"),
    ("pragma optimize", "PRAGMA optimize", "denied"),
]
BOMBS = [
    ("endless count", endless("", "COUNT(*)"), "timeout"),
    ("endless filter", endless("WHERE n < 0"), "timeout"),
    (
        "endless product",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION SELECT a.n + 1 FROM c AS a, product) SELECT * FROM c WHERE n < 0",
        "timeout",
    ),
    ("cross join", "SELECT COUNT(*) FROM " + listed(f"product AS p{i}" for i in range(30)), "timeout"),
    ("many joins", "SELECT COUNT(*) FROM " + listed((f"product p{i}" for i in range(60)), " JOIN "), "timeout"),
    ("too many joins", "SELECT COUNT(*) FROM " + listed(f"product p{i}" for i in range(65)), "error"),
    ("sort of big rows", endless("ORDER BY 1 DESC", "zeroblob(100000) || n"), {"timeout", "too_large"}),
    ("big distinct rows", endless("", "DISTINCT hex(randomblob(50000))"), {"timeout", "too_large"}),
    ("many big rows", endless("", "hex(zeroblob(500000))"), {"timeout", "too_large"}),
    ("sum of big blobs", endless("LIMIT 200", "SUM(length(zeroblob(15000000)))"), "timeout"),
    ("group_concat", endless("", "group_concat(hex(zeroblob(1000)))"), {"timeout", "too_large"}),
    ("json_group_array", endless("", "json_group_array(hex(zeroblob(1000)))"), {"timeout", "too_large"}),
    ("subqueries while preparing", doubling(22), {"timeout", "too_large"}),
    ("zeroblob", "SELECT zeroblob(2000000000)", "too_large"),
    ("zeroblob of everything", "SELECT zeroblob(9223372036854775807)", "too_large"),
    ("randomblob", "SELECT randomblob(2000000000)", "too_large"),
    ("hex", "SELECT hex(zeroblob(9000000))", "too_large"),
    ("hex of hex", "SELECT hex(hex(hex(hex(zeroblob(2000000)))))", "too_large"),
    ("quote", "SELECT quote(zeroblob(9000000))", "too_large"),
    ("replace", "SELECT replace(hex(zeroblob(7000000)), '0', 'aaaaaaaaaa')", "too_large"),
    ("concatenation", "SELECT a || a FROM (SELECT hex(zeroblob(7000000)) AS a)", "too_large"),
    # text that printf cannot hold is NULL to SQLite, not an error
    ("printf", "SELECT printf('%.*c', 20000000, 'x')", "ok"),
    ("printf width", "SELECT printf('%20000000d', 1)", "ok"),
    ("char", "SELECT char(" + listed(["1114111"] * 120) + ")", "ok"),
    ("like pattern", "SELECT printf('%.300000c', 'a') LIKE '" + "%a_" * 1000 + "b'", "ok"),
    ("glob pattern", "SELECT printf('%.100000c', 'a') GLOB '" + "*a?" * 1000 + "b'", "ok"),
    ("like pattern too long", f"SELECT 'a' LIKE printf('%.50001c', '{'%'}')", "error"),
    ("wide row of big values", "SELECT " + listed(f"zeroblob(5000000) AS c{i}" for i in range(40)), "ok"),
]
SHAPES = [
    ("nested parentheses", nested("(", "1", ")", 60), "ok"),
    ("deeply nested parentheses", nested("(", "1", ")", 2000), "error"),
    ("deeply nested functions", nested("abs(", "1", ")", 500), "error"),
    ("deeply nested cases", nested("CASE WHEN 1 THEN ", "1", " END", 500), "error"),
    ("deeply nested subqueries", nested("* FROM (SELECT ", "1", ")", 200), "error"),
    ("deeply nested scalar subqueries", nested("(SELECT ", "1", ")", 200), "error"),
    ("deeply nested NOT", nested("NOT ", "1", "", 2000), "error"),
    ("deep sum", "SELECT " + listed(["1"] * 300, "+"), "ok"),
    ("too deep sum", "SELECT " + listed(["1"] * 1000, "+"), "error"),
    ("deep json", f"SELECT COUNT(*) FROM json_tree('{'[' * 1500}{']' * 1500}')", "ok"),
    ("too deep json", f"SELECT json('{'[' * 5000}{']' * 5000}')", "error"),
    ("IN list of 5000", f"SELECT name FROM product WHERE id IN ({listed(range(5000))})", "ok"),
    ("IN list of 15000", f"SELECT name FROM product WHERE id IN ({listed(range(15000))})", "ok"),
    ("IN list of 50000", f"SELECT name FROM product WHERE id IN ({listed(range(50000))})", "error"),
    ("20000 rows of VALUES", f"VALUES {listed(['(1)'] * 20_000, ',')}", "ok"),
    ("UNION of 100", "SELECT " + listed(["1"] * 100, " UNION ALL SELECT "), "ok"),
    ("UNION of 101", "SELECT " + listed(["1"] * 101, " UNION ALL SELECT "), "error"),
    ("1000 columns", "SELECT " + listed(range(1000)), "ok"),
    ("1001 columns", "SELECT " + listed(range(1001)), "error"),
    ("query of 99 kB", f"SELECT '{'a' * 99_000}'", "ok"),
    ("query of 1 MB", f"SELECT '{'a' * 1_000_000}'", "error"),
    ("name of 90 kB", f"SELECT {'a' * 90_000} FROM product", "error"),
    ("too many arguments", f"SELECT max({listed(range(200))})", "error"),
    ("a parameter", "SELECT ?", "error"),
    ("a named parameter", "SELECT * FROM product WHERE id = :id", "error"),
    ("NUL in text", "SELECT 'a\0b'", "error"),
    ("NUL before a write", "\0DELETE FROM product", "error"),
    ("NUL after a query", "SELECT 1;\0DELETE FROM product", "error"),
    ("lone surrogate", "SELECT '\ud800'", "error"),
    ("lone surrogate as a name", "SELECT \udfff FROM product", "error"),
    ("surrogate made by SQLite", "SELECT char(55296), CAST(x'ff' AS TEXT)", "ok"),
    ("surrogate in an error", "SELECT json_extract('{}', char(55296))", "error"),
    ("overflow", "SELECT abs(-9223372036854775807 - 1)", "error"),
    ("sum overflow", "SELECT SUM(9223372036854775807) FROM product", "error"),
    ("misspelt", "SELEC 1", "error"),
    ("in parentheses", "(SELECT 1)", "error"),
    ("not SQL", "I am sorry, but I cannot answer that.", "error"),
    ("Markdown fence", "```sql\nSELECT 1\n```", "error"),
    ("no such function", 'SELECT YEAR(day) FROM "order"', "error"),
    ("no such collation", "SELECT name FROM product ORDER BY name COLLATE german", "error"),
    ("empty", "", "no_sql"),
    ("white space", " \n\t ", "not_a_query"),
    ("semicolons", " ; ; ", "not_a_query"),
    ("only a line comment", "-- nothing", "not_a_query"),
    ("only an open comment", "/* nothing", "not_a_query"),
    ("only a byte order mark", "\ufeff", "not_a_query"),
    ("two queries", "SELECT 1; SELECT 2", "not_a_query"),
    ("a query and a write", "SELECT 1; DROP TABLE product", "not_a_query"),
    ("a query, a comment and a write", "SELECT 1; /* x */ DELETE FROM product", "not_a_query"),
    ("explain", "EXPLAIN SELECT 1", "not_a_query"),
    ("explain query plan", "explain query plan SELECT * FROM product", "not_a_query"),
    ("explain after comments", "-- a\n/* b */ -- c\nEXPLAIN SELECT 1", "not_a_query"),
    ("explain after a comment with a slash", "/*/ EXPLAIN */ EXPLAIN QUERY PLAN SELECT 1", "not_a_query"),
    ("explain after a byte order mark", "\ufeffEXPLAIN SELECT 1", "not_a_query"),
    ("explain a write", "EXPLAIN DELETE FROM product", "not_a_query"),
]
HARMLESS = [
    ("window", "SELECT name, ROW_NUMBER() OVER (PARTITION BY category ORDER BY id) FROM product", "ok"),
    (
        "window frame",
        'SELECT SUM(pieces) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM "order"',
        "ok",
    ),
    ("named window", "SELECT RANK() OVER w FROM product WINDOW w AS (ORDER BY category)", "ok"),
    ("filter", "SELECT COUNT(*) FILTER (WHERE category = 'tool') FROM product", "ok"),
    ("json_extract", "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), '{\"a\": 1}' ->> 'a'", "ok"),
    ("json_each", "SELECT value FROM json_each('[1, 2, 3]')", "ok"),
    ("json_tree", 'SELECT fullkey FROM json_tree(\'{"a": {"b": 1}}\')', "ok"),
    ("pragma function", "SELECT name FROM pragma_table_info('product')", "ok"),
    ("pragma function joined", "SELECT m.name, i.name FROM sqlite_master AS m, pragma_table_info(m.name) AS i", "ok"),
    ("sqlite_master", "SELECT name, sql FROM sqlite_master WHERE type = 'table'", "ok"),
    ("sqlite_schema", "SELECT COUNT(*) FROM sqlite_schema", "ok"),
    ("recursion to 1000", counting(1000), "ok"),
    (
        "recursive dates",
        "WITH RECURSIVE d(day) AS (VALUES ('2024-01-01') UNION ALL SELECT date(day, '+1 day') FROM d LIMIT 366)"
        " SELECT day FROM d",
        "ok",
    ),
    ("dates", "SELECT strftime('%Y', day), julianday(day), date(day, 'start of month') FROM \"order\"", "ok"),
    ("now", "SELECT date('now'), CURRENT_TIMESTAMP", "ok"),
    ("values", "VALUES (1, 'a'), (2, 'b')", "ok"),
    ("with", "WITH t AS (SELECT id FROM product), u AS (SELECT * FROM t) SELECT * FROM u", "ok"),
    ("cast", "SELECT CAST(id AS REAL) / 2, CAST('12abc' AS INTEGER) FROM product", "ok"),
    ("collate", "SELECT name FROM product WHERE name = 'SAW' COLLATE NOCASE", "ok"),
    (
        "nested subqueries",
        "SELECT name FROM product WHERE id IN"
        ' (SELECT product_id FROM "order" WHERE pieces > (SELECT AVG(pieces) FROM "order"))',
        "ok",
    ),
    (
        "correlated exists",
        'SELECT name FROM product p WHERE NOT EXISTS (SELECT 1 FROM "order" o WHERE o.product_id = p.id)',
        "ok",
    ),
    ("outer joins", 'SELECT * FROM product LEFT JOIN "order" ON product.id = product_id', "ok"),
    ("full join", 'SELECT * FROM product FULL JOIN "order" ON product.id = product_id', "ok"),
    ("set operations", 'SELECT id FROM product EXCEPT SELECT product_id FROM "order" INTERSECT SELECT 3', "ok"),
    ("semicolons and comment signs in text", "SELECT 'a; DROP TABLE product; -- b /* c', '/*'", "ok"),
    ("trailing semicolon and comment", "SELECT 1; -- done", "ok"),
    ("trailing block comment", "SELECT 1; /* done */ ", "ok"),
    ("unclosed trailing comment", "SELECT 1 /* done", "ok"),
    ("comments everywhere", "/* a */SELECT--b\n/**/1/***/", "ok"),
    ("byte order mark", "\ufeffSELECT name FROM product", "ok"),
    ("unicode names", 'SELECT "Länge", "a;b" FROM "Größe"', "ok"),
    ("unicode names without quotes", "SELECT Länge AS 長さ FROM Größe", "ok"),
    ("unicode text", "SELECT * FROM Größe WHERE \"a;b\" = '数据' OR '🦊' = 'é'", "ok"),
    ("brackets and backticks", "SELECT [Unit Price (EUR)], `name` FROM [product]", "ok"),
    ("view", "SELECT name FROM tool", "ok"),
    ("full text", "SELECT body FROM note WHERE note MATCH 'saw'", "ok"),
    ("rtree", "SELECT id FROM box WHERE low <= 0.5 AND high >= 0.5", "ok"),
    ("mathematics", "SELECT round(sqrt(pow(id, 2)), 2), id % 2, id << 1 FROM product", "ok"),
    ("text functions", "SELECT upper(name), substr(name, 1, 2), instr(name, 'a'), trim(name) FROM product", "ok"),
    ("like", "SELECT name FROM product WHERE name LIKE 's%' ESCAPE '\\'", "ok"),
    ("random", "SELECT name FROM product ORDER BY random()", "ok"),
    ("no rows", "SELECT name FROM product WHERE id = 99", "empty"),
    ("no rows of a join", 'SELECT 1 FROM product JOIN "order" USING (id) WHERE 0', "empty"),
    ("limit 0", "SELECT * FROM product LIMIT 0", "empty"),
]
CORPUS = WRITES + DEFINITIONS + WAYS_OUT + PRAGMAS + BOMBS + SHAPES + HARMLESS
# one step of SQLite's virtual machine, and about 10 ** 11 comparisons: its progress handler is not asked meanwhile
HANGING = "SELECT replace(hex(zeroblob(7900000)), '0', 'a') GLOB '*" + "a" * 40_000 + "b'"
