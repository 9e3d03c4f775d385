"""A small international railway: stations, lines, their stops and the daily runs."""

from random import Random

from demo_domains import day_after

SEED = 303

SCHEMA = """
CREATE TABLE station (
    station_code TEXT PRIMARY KEY, name TEXT, country TEXT, platforms INTEGER, opened_year INTEGER
);
CREATE TABLE line (
    line_id INTEGER PRIMARY KEY, name TEXT, operator TEXT, max_speed_kmh INTEGER
);
CREATE TABLE line_stop (
    line_id INTEGER, stop_no INTEGER, station_code TEXT, km_from_start REAL,
    PRIMARY KEY (line_id, stop_no),
    FOREIGN KEY (line_id) REFERENCES line (line_id),
    FOREIGN KEY (station_code) REFERENCES station (station_code)
);
CREATE TABLE train_run (
    run_id INTEGER PRIMARY KEY, line_id INTEGER, run_date DATE, state TEXT, delay_min INTEGER, passengers INTEGER,
    FOREIGN KEY (line_id) REFERENCES line (line_id)
);
"""

STATIONS = [
    ("ZUE", "Zürich HB", "CHE", 26, 1847), ("BAS", "Basel SBB", "CHE", 25, 1854), ("GVA", "Genève", "CHE", 8, 1858),
    ("CHU", "Chur", "CHE", 12, 1858), ("MUE", "München Hbf", "DEU", 32, 1839), ("NUE", "Nürnberg Hbf", "DEU", 22, 1844),
    ("LIN", "Lindau-Reutin", "DEU", 4, 2020), ("WIE", "Wien Hbf", "AUT", 12, 2014),
    ("SZG", "Salzburg Hbf", "AUT", 9, 1860),
    ("INN", "Innsbruck Hbf", "AUT", 10, 1858), ("PRG", "Praha hl.n.", "CZE", 16, 1871),
    ("BRN", "Brno hl.n.", "CZE", 6, 1839),
    ("LDZ", "Łódź Fabryczna", "POL", 8, 2016), ("WAW", "Warszawa Centralna", "POL", 8, 1975),
    ("KRK", "Kraków Główny", "POL", 10, 1847), ("ALP", "Alpenrose Halt", "AUT", 1, None),
    ("SEE", "Seeblick", "CHE", 2, None), ("HRA", "Hradec Mlýn", "CZE", 2, None), ("GDY", "Gdynia Port", "POL", 3, None),
]  # fmt: skip
LINES = [
    ("Alpine Arrow", "NordBahn", 200, "ZUE SEE LIN INN SZG"),
    ("Danube Express", "NordBahn", 230, "MUE SZG WIE BRN PRG"),
    ("Amber Line", "Vistula Rail", 160, "GDY WAW LDZ KRK"), ("Lake Hopper", "Seebahn", 120, "CHU SEE ZUE BAS"),
    ("Romandie Link", "Seebahn", 160, "BAS ZUE GVA"), ("Bohemian Night", "Vistula Rail", 140, "KRK BRN PRG NUE MUE"),
    ("Golden Crown", "NordBahn", 200, "ZUE LIN MUE NUE PRG"), ("Tyrol Local", "Bergbahn", 80, "INN ALP LIN"),
]  # fmt: skip


def _runs(rng: Random) -> list[tuple]:
    """A cancelled run has neither a delay nor passengers, so both are NULL."""
    runs = []
    for day in range(0, 150):
        for line in range(1, 9):
            if rng.random() < 0.25:
                continue
            state = rng.choices("RPX", [85, 8, 7])[0]
            delay = None if state == "X" else max(0, int(rng.gauss(3 + line, 9)))
            people = None if state == "X" else rng.randrange(30, 120 + 45 * line)
            runs.append((len(runs) + 1, line, day_after("2023-09-01", day), state, delay, people))
    return runs


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table, parents first."""
    stops = []
    for number, (_, _, _, codes) in enumerate(LINES, 1):
        km = 0.0
        for stop, code in enumerate(codes.split(), 1):
            stops.append((number, stop, code, round(km, 1)))
            km += rng.uniform(25, 190)
    return {
        "station": STATIONS,
        "line": [(number, *line[:3]) for number, line in enumerate(LINES, 1)],
        "line_stop": stops,
        "train_run": _runs(rng),
    }


DESCRIPTIONS = {
    "station": {
        "station_code": ("station code", "three-letter code of the station", "text", ""),
        "name": ("station name", "name in the local language, such as Łódź Fabryczna", "text", ""),
        "country": ("country", "ISO code of the country", "text", "CHE, DEU, AUT, CZE, POL"),
        "platforms": ("platforms", "number of platforms", "integer", ""),
        "opened_year": ("opened year", "year in which the station opened", "integer", "NULL: not known"),
    },
    "line": {
        "line_id": ("line id", "unique id of the line", "integer", ""),
        "name": ("line name", "name of the line", "text", ""),
        "operator": ("operator", "company that runs the trains", "text", ""),
        "max_speed_kmh": ("maximum speed", "highest speed in kilometres per hour", "integer", ""),
    },
    "line_stop": {
        "line_id": ("line id", "the line", "integer", ""),
        "stop_no": ("stop number", "place of the stop on the line", "integer", "1 is the first station"),
        "station_code": ("station code", "the station", "text", ""),
        "km_from_start": ("km from start", "distance from the first station in kilometres", "real", ""),
    },
    "train_run": {
        "run_id": ("run id", "unique id of the run", "integer", ""),
        "line_id": ("line id", "the line", "integer", ""),
        "run_date": ("run date", "day of the run", "date", "YYYY-MM-DD"),
        "state": ("state", "how the run went", "text", "R: regular, P: only part of the way, X: cancelled"),
        "delay_min": ("delay", "delay at the last stop in minutes", "integer", "0: on time; NULL: cancelled"),
        "passengers": ("passengers", "number of passengers", "integer", "NULL: cancelled"),
    },
}

QUESTIONS = [
    (
        "simple",
        "How many stations are in Switzerland?",
        "Switzerland refers to country = 'CHE'",
        "SELECT COUNT(*) FROM station WHERE country = 'CHE'",
    ),
    (
        "simple",
        "List the name and the number of platforms of the stations with more than 15 platforms.",
        "",
        "SELECT name, platforms FROM station WHERE platforms > 15",
    ),
    (
        "simple",
        "What is the maximum speed of the Amber Line?",
        "Amber Line is the name of a line",
        "SELECT max_speed_kmh FROM line WHERE name = 'Amber Line'",
    ),
    (
        "simple",
        "List the names of the stations that opened before 1850, from the oldest to the newest by opening year.",
        "If two stations opened in the same year, order them by name.",
        "SELECT name FROM station WHERE opened_year < 1850 ORDER BY opened_year, name",
    ),
    (
        "simple",
        "How many runs were cancelled?",
        "cancelled refers to state = 'X'",
        "SELECT COUNT(*) FROM train_run WHERE state = 'X'",
    ),
    (
        "simple",
        "What are the names of the stations whose opening year is not known?",
        "",
        "SELECT name FROM station WHERE opened_year IS NULL",
    ),
    ("simple", "How many different operators are there?", "", "SELECT COUNT(DISTINCT operator) FROM line"),
    (
        "simple",
        "What is the largest delay in minutes?",
        "",
        "SELECT MAX(delay_min) FROM train_run",
    ),
    (
        "moderate",
        "List the names of the stations on the Danube Express in the order of the stops.",
        "Danube Express is the name of a line",
        "SELECT T3.name FROM line AS T1 INNER JOIN line_stop AS T2 ON T1.line_id = T2.line_id "
        "INNER JOIN station AS T3 ON T2.station_code = T3.station_code WHERE T1.name = 'Danube Express' "
        "ORDER BY T2.stop_no",
    ),
    (
        "moderate",
        "For each operator, give the operator and the total number of passengers.",
        "",
        "SELECT T1.operator, SUM(T2.passengers) FROM line AS T1 INNER JOIN train_run AS T2 "
        "ON T1.line_id = T2.line_id GROUP BY T1.operator",
    ),
    (
        "moderate",
        "Which line has the highest average delay? Give the name of the line.",
        "",
        "SELECT T1.name FROM line AS T1 INNER JOIN train_run AS T2 ON T1.line_id = T2.line_id "
        "GROUP BY T1.line_id ORDER BY AVG(T2.delay_min) DESC LIMIT 1",
    ),
    (
        "moderate",
        "List the names of the stations where more than one line stops.",
        "",
        "SELECT T1.name FROM station AS T1 INNER JOIN line_stop AS T2 ON T1.station_code = T2.station_code "
        "GROUP BY T1.station_code HAVING COUNT(*) > 1",
    ),
    (
        "moderate",
        "How many runs of the lines operated by Vistula Rail took place in December 2023 and were not cancelled?",
        "not cancelled refers to state <> 'X'; in December 2023 refers to run_date LIKE '2023-12%'",
        "SELECT COUNT(*) FROM line AS T1 INNER JOIN train_run AS T2 ON T1.line_id = T2.line_id "
        "WHERE T1.operator = 'Vistula Rail' AND T2.run_date LIKE '2023-12%' AND T2.state <> 'X'",
    ),
    (
        "challenging",
        "Give the name and the length in kilometres of each line that is longer than 350 km.",
        "length of a line = MAX(km_from_start) of the line",
        "SELECT T1.name, MAX(T2.km_from_start) FROM line AS T1 INNER JOIN line_stop AS T2 ON T1.line_id = T2.line_id "
        "GROUP BY T1.line_id HAVING MAX(T2.km_from_start) > 350",
    ),
    (
        "challenging",
        "Which stations can be reached from Zürich HB without a change of line? Give their different names.",
        "A line that stops at a station can be used in both directions; do not list Zürich HB itself.",
        "SELECT DISTINCT T4.name FROM station AS T1 INNER JOIN line_stop AS T2 ON T1.station_code = T2.station_code "
        "INNER JOIN line_stop AS T3 ON T2.line_id = T3.line_id INNER JOIN station AS T4 "
        "ON T3.station_code = T4.station_code WHERE T1.name = 'Zürich HB' AND T4.name <> 'Zürich HB'",
    ),
    (
        "challenging",
        "What percentage of the runs of the Lake Hopper that were not cancelled had a delay of more than 10 minutes?",
        "not cancelled refers to state <> 'X'; percentage = DIVIDE(COUNT(delay_min > 10), COUNT(state <> 'X')) * 100",
        "SELECT CAST(SUM(CASE WHEN T2.delay_min > 10 THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) FROM line AS T1 "
        "INNER JOIN train_run AS T2 ON T1.line_id = T2.line_id WHERE T1.name = 'Lake Hopper' AND T2.state <> 'X'",
    ),
]
