"""A city library: books, the people who made them, members and loans."""

from random import Random

from demo_domains import day_after

SEED = 102

SCHEMA = """
CREATE TABLE author (
    author_id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT, birth_year INTEGER
);
CREATE TABLE book (
    book_id INTEGER PRIMARY KEY, title TEXT NOT NULL, genre TEXT, language TEXT, publication_year INTEGER, pages INTEGER
);
CREATE TABLE book_author (
    book_id INTEGER, author_id INTEGER, role TEXT,
    PRIMARY KEY (book_id, author_id),
    FOREIGN KEY (book_id) REFERENCES book (book_id),
    FOREIGN KEY (author_id) REFERENCES author (author_id)
);
CREATE TABLE member (
    member_id INTEGER PRIMARY KEY, full_name TEXT, city TEXT, joined_on DATE, category TEXT
);
CREATE TABLE loan (
    loan_id INTEGER PRIMARY KEY, book_id INTEGER, member_id INTEGER, borrowed_on DATE, due_on DATE, returned_on DATE,
    fine_eur REAL,
    FOREIGN KEY (book_id) REFERENCES book (book_id),
    FOREIGN KEY (member_id) REFERENCES member (member_id)
);
"""

AUTHORS = [
    ("Wanda Zielińska", "Poland", 1948), ("Tomasz Brzoza", "Poland", 1971), ("Ewa Łukasik", "Poland", None),
    ("Haruko Endo", "Japan", 1957), ("Kenji Morimoto", "Japan", 1980), ("Inês Carvalhal", "Portugal", 1966),
    ("João Brandão", "Portugal", None), ("Grit Ahlers", "Germany", 1959), ("Jörg Wittmann", "Germany", 1983),
    ("Margaret Quill", "Ireland", 1938), ("Declan Rafter", "Ireland", 1975), ("Solveig Åkerman", "Sweden", 1969),
    ("Nils Högberg", "Sweden", None), ("Odile Ferrand", "France", 1952), ("Rémi Castaing", "France", 1988),
]  # fmt: skip
BOOKS = [
    ("The Salt Lighthouse", "crime", "English"), ("Nine Doors in Łódź", "crime", "Polish"),
    ("A Quiet Verdict", "crime", "English"), ("The Ferry to Nowhere", "crime", "Swedish"),
    ("Cold Harbour Ledger", "crime", "English"), ("Die stille Schleuse", "crime", "German"),
    ("Glass Orchards", "novel", "English"), ("Pod lipami", "novel", "Polish"), ("Brzeg", "novel", "Polish"),
    ("The Cartographer's Aunt", "novel", "English"), ("Les heures bleues", "novel", "French"),
    ("Snowbound Letters", "novel", "English"), ("O jardim de sal", "novel", "Portuguese"),
    ("Sommar utan klocka", "novel", "Swedish"), ("The Tin Piano", "novel", "English"),
    ("東京の朝", "novel", "Japanese"), ("Small Bridges", "poetry", "English"),
    ("Wiersze z pociągu", "poetry", "Polish"),
    ("Haiku for Engineers", "poetry", "English"), ("Rosée", "poetry", "French"),
    ("A Short History of Bread", "history", "English"), ("Canals of Europe", "history", "English"),
    ("Kleine Stadtgeschichte", "history", "German"), ("The Amber Roads", "history", "English"),
    ("História do azulejo", "history", "Portuguese"), ("The Owl Who Counted", "children", "English"),
    ("Kot i zegar", "children", "Polish"), ("Marta Builds a Boat", "children", "English"),
    ("Der kleine Bagger", "children", "German"), ("ねこの図書館", "children", "Japanese"),
    ("Where Rivers Sleep", "children", "English"), ("Le renard à vélo", "children", "French"),
    ("Star Ferry 9", "science fiction", "English"), ("Orbit of Ash", "science fiction", "English"),
    ("Stacja Wega", "science fiction", "Polish"), ("The Last Gardener of Mars", "science fiction", "English"),
]  # fmt: skip
FIRST = ["Anna", "Piotr", "Lena", "Marek", "Julia", "Oskar", "Zofia", "Filip", "Nora", "Igor"]
LAST = ["Nowak", "Schäfer", "Wrona", "Lindqvist", "Okafor"]
CITIES = ["Brookfield", "Zürich", "Harrow End", "Łódź", "Westmere", "Brookfield"]


def _loans(rng: Random) -> list[tuple]:
    """Four books stay on the shelf, and popular books and busy members come up more often than others."""
    loans = []
    for number in range(1, 421):
        borrowed = day_after("2022-01-03", number * 7 // 4 + rng.randrange(3))
        due = day_after(borrowed, 21)
        late = rng.random() < 0.3
        open_loan = number > 330 and rng.random() < 0.35
        days = rng.randrange(22, 60) if late else rng.randrange(2, 22)
        fine = round(0.2 * (days - 21), 2) if late and not open_loan and rng.random() < 0.8 else None
        book = min(rng.randrange(1, 33), rng.randrange(1, 33))
        member = (int(50 * rng.random() ** 1.6) * 17 + 23) % 50 + 1
        loans.append((number, book, member, borrowed, due, None if open_loan else day_after(borrowed, days), fine))
    return loans


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table, parents first."""
    books, makers = [], []
    for number, (title, genre, language) in enumerate(BOOKS, 1):
        pages = rng.randrange(24, 64) if genre == "children" else rng.randrange(90, 760)
        books.append((number, title, genre, language, rng.randrange(1962, 2023), pages))
        people = rng.sample(range(1, 16), rng.choice([1, 1, 1, 2, 2, 3]))
        roles = ["A", rng.choice("ATI"), rng.choice("TI")]
        makers += [(number, person, role) for person, role in zip(people, roles, strict=False)]
    members = []
    for number in range(1, 51):
        name = f"{FIRST[(number - 1) % 10]} {LAST[(number - 1) // 10]}"
        joined = day_after("2015-02-01", rng.randrange(2500))
        members.append((number, name, rng.choice(CITIES), joined, rng.choice("AAASSCR")))
    return {
        "author": [(number, *author) for number, author in enumerate(AUTHORS, 1)],
        "book": books,
        "book_author": makers,
        "member": members,
        "loan": _loans(rng),
    }


DESCRIPTIONS = {
    "author": {
        "author_id": ("author id", "unique id of the person", "integer", ""),
        "name": ("name", "full name of the author, translator or illustrator", "text", ""),
        "country": ("country", "country the person comes from, in English", "text", ""),
        "birth_year": ("birth year", "year of birth", "integer", "NULL: the birth year is not known"),
    },
    "book": {
        "book_id": ("book id", "unique id of the book", "integer", ""),
        "title": ("title", "title in the language of the book", "text", ""),
        "genre": ("genre", "genre in lower case", "text", "crime, novel, poetry, history, children, science fiction"),
        "language": ("language", "language the book is written in", "text", "English name, such as Polish"),
        "publication_year": ("publication year", "year in which the book came out", "integer", ""),
        "pages": ("pages", "number of pages", "integer", ""),
    },
    "book_author": {
        "book_id": ("book id", "the book", "integer", ""),
        "author_id": ("author id", "the person who worked on the book", "integer", ""),
        "role": ("role", "what the person did for the book", "text", "A: author\nT: translator\nI: illustrator"),
    },
    "member": {
        "member_id": ("member id", "unique id of the library member", "integer", ""),
        "full_name": ("full name", "first and last name", "text", ""),
        "city": ("city", "city where the member lives", "text", ""),
        "joined_on": ("joined on", "date on which the member joined", "date", "YYYY-MM-DD"),
        "category": ("category", "kind of membership", "text", "A: adult, S: student, C: child, R: retired"),
    },
    "loan": {
        "loan_id": ("loan id", "unique id of the loan", "integer", ""),
        "book_id": ("book id", "the book on loan", "integer", ""),
        "member_id": ("member id", "the member who borrowed the book", "integer", ""),
        "borrowed_on": ("borrowed on", "date on which the loan began", "date", "YYYY-MM-DD"),
        "due_on": ("due on", "date by which the book must be back", "date", "YYYY-MM-DD"),
        "returned_on": ("returned on", "date on which the book came back", "date", "NULL: not returned yet"),
        "fine_eur": ("fine", "fine for a late return in euros", "real", "NULL: no fine"),
    },
}

QUESTIONS = [
    ("simple", "How many books are written in Polish?", "", "SELECT COUNT(*) FROM book WHERE language = 'Polish'"),
    (
        "simple",
        "List the titles of the books with more than 600 pages.",
        "",
        "SELECT title FROM book WHERE pages > 600",
    ),
    (
        "simple",
        "What are the names of the authors whose birth year is not known?",
        "birth year is not known refers to birth_year IS NULL",
        "SELECT name FROM author WHERE birth_year IS NULL",
    ),
    (
        "simple",
        "How many loans have not been returned yet?",
        "not returned yet refers to returned_on IS NULL",
        "SELECT COUNT(*) FROM loan WHERE returned_on IS NULL",
    ),
    (
        "simple",
        "How many child members does the library have?",
        "child member refers to category = 'C'",
        "SELECT COUNT(*) FROM member WHERE category = 'C'",
    ),
    ("simple", "In how many different cities do the members live?", "", "SELECT COUNT(DISTINCT city) FROM member"),
    (
        "simple",
        "What is the title of the book with the most pages?",
        "",
        "SELECT title FROM book ORDER BY pages DESC LIMIT 1",
    ),
    (
        "simple",
        "What is the average number of pages of the crime books?",
        "",
        "SELECT AVG(pages) FROM book WHERE genre = 'crime'",
    ),
    (
        "moderate",
        "How many loans were made in March 2023?",
        "made in March 2023 refers to borrowed_on LIKE '2023-03%'",
        "SELECT COUNT(*) FROM loan WHERE borrowed_on LIKE '2023-03%'",
    ),
    (
        "moderate",
        "List the titles of the books of which Odile Ferrand is an author.",
        "is an author refers to role = 'A'",
        "SELECT T1.title FROM book AS T1 INNER JOIN book_author AS T2 ON T1.book_id = T2.book_id "
        "INNER JOIN author AS T3 ON T2.author_id = T3.author_id WHERE T3.name = 'Odile Ferrand' AND T2.role = 'A'",
    ),
    (
        "moderate",
        "List each genre that has at least 6 books, together with its number of books.",
        "",
        "SELECT genre, COUNT(*) FROM book GROUP BY genre HAVING COUNT(*) >= 6",
    ),
    (
        "moderate",
        "What is the full name of the member who has made the most loans?",
        "",
        "SELECT T1.full_name FROM member AS T1 INNER JOIN loan AS T2 ON T1.member_id = T2.member_id "
        "GROUP BY T1.member_id ORDER BY COUNT(*) DESC LIMIT 1",
    ),
    (
        "moderate",
        "List the titles of the books that have never been borrowed.",
        "",
        "SELECT title FROM book WHERE book_id NOT IN (SELECT book_id FROM loan)",
    ),
    (
        "challenging",
        "Among the loans that have been returned, what percentage came back after the due date?",
        "percentage = DIVIDE(COUNT(returned_on > due_on), COUNT(returned_on IS NOT NULL)) * 100",
        "SELECT CAST(SUM(CASE WHEN returned_on > due_on THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) "
        "FROM loan WHERE returned_on IS NOT NULL",
    ),
    (
        "challenging",
        "Which people have worked both as an author and as a translator? Give their names.",
        "author refers to role = 'A'; translator refers to role = 'T'",
        "SELECT name FROM author WHERE author_id IN (SELECT author_id FROM book_author WHERE role = 'A' "
        "INTERSECT SELECT author_id FROM book_author WHERE role = 'T')",
    ),
    (
        "challenging",
        "For each genre, give the genre and the title of its longest book.",
        "longest book refers to MAX(pages) within the genre",
        "SELECT T1.genre, T1.title FROM book AS T1 INNER JOIN (SELECT genre, MAX(pages) AS longest FROM book "
        "GROUP BY genre) AS T2 ON T1.genre = T2.genre AND T1.pages = T2.longest",
    ),
]
