"""A film festival: films, venues, screenings with ticket sales, and the votes of the jury."""

from random import Random

SEED = 606

SCHEMA = """
CREATE TABLE film (
    film_id INTEGER PRIMARY KEY, title TEXT, "Original Title" TEXT, country TEXT, director TEXT, year INTEGER,
    "Running Time (min)" INTEGER, section TEXT
);
CREATE TABLE venue (
    venue_id INTEGER PRIMARY KEY, name TEXT, seats INTEGER
);
CREATE TABLE screening (
    screening_id INTEGER PRIMARY KEY, film_id INTEGER, venue_id INTEGER, starts_at DATETIME,
    "Ticket Price (EUR)" REAL, "Tickets Sold" INTEGER, "Q&A (Y/N)" TEXT,
    FOREIGN KEY (film_id) REFERENCES film (film_id),
    FOREIGN KEY (venue_id) REFERENCES venue (venue_id)
);
CREATE TABLE juror (
    juror_id INTEGER PRIMARY KEY, name TEXT, country TEXT
);
CREATE TABLE vote (
    juror_id INTEGER, film_id INTEGER, score INTEGER,
    PRIMARY KEY (juror_id, film_id),
    FOREIGN KEY (juror_id) REFERENCES juror (juror_id),
    FOREIGN KEY (film_id) REFERENCES film (film_id)
);
"""

FILMS = [
    ("The Paper Boats", None, "Ireland", "Aoife Tallon", 2022, 98, "C"),
    ("Morning in Tokyo", "東京の朝焼け", "Japan", "Sayuri Kanda", 2023, 121, "C"),
    ("The Concrete Garden", "O Quintal de Concreto", "Brazil", "Thiago Pessoa", 2022, 104, "C"),
    ("Salt on the Window", "Sól na szybie", "Poland", "Kinga Wilczek", 2023, 133, "C"),
    ("Nine Winters", "Ni vintre", "Denmark", "Asger Toft", 2021, 112, "C"),
    ("A Bus to Potosí", "Un bus a Potosí", "Bolivia", "Lucía Mamani", 2022, 87, "C"),
    ("Kitchen Radio", None, "Canada", "Marc Beaulne", 2023, 94, "C"),
    ("The Beekeeper's Map", "Karta pčelara", "Croatia", "Ivo Lerotić", 2023, 109, "C"),
    ("Rooftop Summer", "Été sur les toits", "France", "Maëlle Garrigue", 2022, 101, "P"),
    ("Long Shadow Street", None, "Ireland", "Conor Hasty", 2021, 118, "P"),
    ("Blue Hour Taxi", "ブルーアワー", "Japan", "Ren Asakura", 2022, 97, "P"),
    ("Grandmother's Drum", "O Tambor da Avó", "Brazil", "Rita Amaral", 2023, 125, "P"),
    ("The Interpreter's Silence", "Das Schweigen", "Germany", "Uta Rehbein", 2022, 142, "P"),
    ("Harbour Lights Out", None, "Canada", "Joan Petrie", 2023, 90, "P"),
    ("Dust and Honey", "Toz ve Bal", "Türkiye", "Defne Aral", 2021, 116, "P"),
    ("Glaciers Remember", "Jöklar muna", "Iceland", "Birna Hauksdóttir", 2023, 78, "D"),
    ("The Last Switchboard", None, "Ireland", "Nuala Fenn", 2022, 72, "D"),
    ("River People", "Povo do Rio", "Brazil", "Caio Duarte", 2021, 89, "D"),
    ("Iron Women", "Żelazne", "Poland", "Ola Grabiec", 2022, 83, "D"),
    ("Inventory of Bells", "Inventaire des cloches", "France", "Luc Tissot", 2023, 66, "D"),
    ("The Night Bakers", "Die Nachtbäcker", "Germany", "Jens Kolbe", 2022, 75, "D"),
    ("Kite Season", "Mausam", "India", "Anjali Rao", 2023, 14, "S"),
    ("Lost Glove", None, "Canada", "Sam Ouellet", 2022, 9, "S"),
    ("Elevator Waltz", "Aufzugwalzer", "Germany", "Mia Stenzel", 2023, 17, "S"),
    ("Three Umbrellas", "Trzy parasole", "Poland", "Jan Borkowicz", 2023, 12, "S"),
    ("Postcard", "Postkort", "Denmark", "Ida Rosing", 2021, 21, "S"),
]
VENUES = [
    ("Grand Palace", 620), ("Old Mint Cinema", 240), ("Harbour Tent", 410), ("Studio 4", 95), ("Lyceum", 330),
    ("Open Air Meadow", 800),
]  # fmt: skip
JURORS = [
    ("Paloma Rivas", "Spain"), ("Henri Vautrin", "France"), ("Mirjana Kos", "Croatia"), ("Ola Brandt", "Sweden"),
    ("Takumi Sera", "Japan"), ("Beatriz Lobo", "Brazil"), ("Fergal Dunne", "Ireland"),
]  # fmt: skip


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; the open-air place stays unused, and a juror may abstain (NULL)."""
    screenings, votes = [], []
    for film in range(1, 26):
        for _ in range(rng.randrange(2, 6)):
            venue = rng.randrange(1, 6)
            start = f"2024-05-{rng.randrange(10, 20)} {rng.choice([11, 14, 17, 20, 22])}:{rng.choice(['00', '30'])}"
            seats = VENUES[venue - 1][1]
            sold = seats if rng.random() < 0.15 else rng.randrange(seats // 5, seats)
            price = rng.choice([6.5, 8, 9.5, 12, 15])
            screenings.append((len(screenings) + 1, film, venue, start, price, sold, rng.choice("YNN")))
        if FILMS[film - 1][-1] in "CD":
            votes += [(juror, film, rng.choice([*range(3, 11), None])) for juror in range(1, 8)]
    return {
        "film": [(number, *film) for number, film in enumerate(FILMS, 1)],
        "venue": [(number, *venue) for number, venue in enumerate(VENUES, 1)],
        "screening": screenings,
        "juror": [(number, *juror) for number, juror in enumerate(JURORS, 1)],
        "vote": votes,
    }


CSV_ENCODINGS = {"film": "utf-8-sig"}

DESCRIPTIONS = {
    "film": {
        "film_id": ("film id", "unique id of the film", "integer", ""),
        "title": ("title", "English title of the film", "text", ""),
        "Original Title": ("original title", "title in the original language", "text", "NULL: the same as title"),
        "country": ("country", "country of production, in English", "text", ""),
        "director": ("director", "full name of the director", "text", ""),
        "year": ("year", "year of production", "integer", ""),
        "Running Time (min)": ("running time", "length of the film in minutes", "integer", ""),
        "section": (
            "section",
            "section of the programme",
            "text",
            "C: competition\nP: panorama\nD: documentary\nS: short film",
        ),
    },
    "venue": {
        "venue_id": ("venue id", "unique id of the venue", "integer", ""),
        "name": ("venue name", "name of the venue", "text", ""),
        "seats": ("seats", "number of seats", "integer", ""),
    },
    "screening": {
        "screening_id": ("screening id", "unique id of the screening", "integer", ""),
        "film_id": ("film id", "the film shown", "integer", ""),
        "venue_id": ("venue id", "the place", "integer", ""),
        "starts_at": ("starts at", "day and time at which it begins", "datetime", "YYYY-MM-DD HH:MM"),
        "Ticket Price (EUR)": ("ticket price", "price of one ticket in euros", "real", ""),
        "Tickets Sold": ("tickets sold", "number of tickets sold", "integer", "sold out: equal to the seats"),
        "Q&A (Y/N)": ("question time", "whether the director answers questions afterwards", "text", "Y: yes, N: no"),
    },
    "juror": {
        "juror_id": ("juror id", "unique id of the juror", "integer", ""),
        "name": ("juror name", "full name", "text", ""),
        "country": ("country", "home country of the juror", "text", ""),
    },
    "vote": {
        "juror_id": ("juror id", "the juror", "integer", ""),
        "film_id": ("film id", "the film", "integer", ""),
        "score": ("score", "points from 1 to 10", "integer", "NULL: the juror abstained"),
    },
}

QUESTIONS = [
    ("simple", "How many films are from Brazil?", "", "SELECT COUNT(*) FROM film WHERE country = 'Brazil'"),
    (
        "simple",
        "List the title and the director of the films in the documentary section.",
        "documentary section refers to section = 'D'",
        "SELECT title, director FROM film WHERE section = 'D'",
    ),
    (
        "simple",
        "What is the title of the film with the longest running time?",
        "running time refers to `Running Time (min)`",
        "SELECT title FROM film ORDER BY `Running Time (min)` DESC LIMIT 1",
    ),
    (
        "simple",
        "What are the titles of the films that have no original title of their own?",
        "no original title refers to `Original Title` IS NULL",
        "SELECT title FROM film WHERE `Original Title` IS NULL",
    ),
    (
        "simple",
        "How many screenings end with questions to the director?",
        "with questions to the director refers to `Q&A (Y/N)` = 'Y'",
        "SELECT COUNT(*) FROM screening WHERE `Q&A (Y/N)` = 'Y'",
    ),
    (
        "simple",
        "List the name and the seats of the venues with more than 300 seats, from the most seats to the fewest.",
        "",
        "SELECT name, seats FROM venue WHERE seats > 300 ORDER BY seats DESC",
    ),
    (
        "simple",
        "From how many different countries are the films?",
        "",
        "SELECT COUNT(DISTINCT country) FROM film",
    ),
    (
        "simple",
        "What is the total number of tickets sold for screenings with a ticket price of 15 euros?",
        "ticket price refers to `Ticket Price (EUR)`; tickets sold refers to `Tickets Sold`",
        "SELECT SUM(`Tickets Sold`) FROM screening WHERE `Ticket Price (EUR)` = 15",
    ),
    (
        "moderate",
        "How many screenings took place on 12 May 2024?",
        "on 12 May 2024 refers to starts_at LIKE '2024-05-12%'",
        "SELECT COUNT(*) FROM screening WHERE starts_at LIKE '2024-05-12%'",
    ),
    (
        "moderate",
        "List the different titles of the films shown in Studio 4.",
        "Studio 4 is the name of a venue",
        "SELECT DISTINCT T1.title FROM film AS T1 INNER JOIN screening AS T2 ON T1.film_id = T2.film_id "
        "INNER JOIN venue AS T3 ON T2.venue_id = T3.venue_id WHERE T3.name = 'Studio 4'",
    ),
    (
        "moderate",
        "At which venue was no film shown? Give its name.",
        "",
        "SELECT T1.name FROM venue AS T1 LEFT JOIN screening AS T2 ON T1.venue_id = T2.venue_id "
        "WHERE T2.screening_id IS NULL",
    ),
    (
        "moderate",
        "Which film received the highest average score from the jurors? Give the title.",
        "",
        "SELECT T1.title FROM film AS T1 INNER JOIN vote AS T2 ON T1.film_id = T2.film_id GROUP BY T1.film_id "
        "ORDER BY AVG(T2.score) DESC LIMIT 1",
    ),
    (
        "moderate",
        "Give the name of each juror who abstained at least three times, together with the number of abstentions.",
        "abstained refers to score IS NULL",
        "SELECT T1.name, COUNT(*) FROM juror AS T1 INNER JOIN vote AS T2 ON T1.juror_id = T2.juror_id "
        "WHERE T2.score IS NULL GROUP BY T1.juror_id HAVING COUNT(*) >= 3",
    ),
    (
        "challenging",
        "What percentage of the screenings were sold out?",
        "sold out refers to `Tickets Sold` = seats; "
        "percentage = DIVIDE(COUNT(`Tickets Sold` = seats), COUNT(screening_id)) * 100",
        "SELECT CAST(SUM(CASE WHEN T1.`Tickets Sold` = T2.seats THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) "
        "FROM screening AS T1 INNER JOIN venue AS T2 ON T1.venue_id = T2.venue_id",
    ),
    (
        "challenging",
        "Which film earned the most money from its tickets? Give the title and the amount in euros.",
        "money = SUM(MULTIPLY(`Ticket Price (EUR)`, `Tickets Sold`))",
        "SELECT T1.title, SUM(T2.`Ticket Price (EUR)` * T2.`Tickets Sold`) FROM film AS T1 INNER JOIN screening AS T2 "
        "ON T1.film_id = T2.film_id GROUP BY T1.film_id "
        "ORDER BY SUM(T2.`Ticket Price (EUR)` * T2.`Tickets Sold`) DESC LIMIT 1",
    ),
    (
        "challenging",
        "List the name of each juror and the title of each film that the juror gave 10 points, "
        "for films from the juror's own country.",
        "10 points refers to score = 10",
        "SELECT T1.name, T3.title FROM juror AS T1 INNER JOIN vote AS T2 ON T1.juror_id = T2.juror_id "
        "INNER JOIN film AS T3 ON T2.film_id = T3.film_id WHERE T2.score = 10 AND T1.country = T3.country",
    ),
]
