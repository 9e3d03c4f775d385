"""A group of observatories, the widest schema here: sites, telescopes, people, targets, observations and repairs."""

from random import Random

from demo_domains import day_after

SEED = 808

SCHEMA = """
CREATE TABLE site (
    site_id INTEGER PRIMARY KEY, name TEXT, country TEXT, altitude_m INTEGER, latitude REAL, longitude REAL,
    clear_nights INTEGER
);
CREATE TABLE telescope (
    telescope_id INTEGER PRIMARY KEY, name TEXT, site_id INTEGER, "Aperture (m)" REAL, "Focal Length (m)" REAL,
    mount TEXT, first_light DATE, status TEXT,
    FOREIGN KEY (site_id) REFERENCES site (site_id)
);
CREATE TABLE astronomer (
    astronomer_id INTEGER PRIMARY KEY, name TEXT, institute TEXT, country TEXT, degree_year INTEGER, email TEXT,
    mentor_id INTEGER,
    FOREIGN KEY (mentor_id) REFERENCES astronomer (astronomer_id)
);
CREATE TABLE target (
    target_id INTEGER PRIMARY KEY, designation TEXT, common_name TEXT, class TEXT, constellation TEXT, magnitude REAL,
    distance_ly REAL, ra_deg REAL, dec_deg REAL
);
CREATE TABLE observation (
    observation_id INTEGER PRIMARY KEY, telescope_id INTEGER, target_id INTEGER, astronomer_id INTEGER, night DATE,
    "Exposure (s)" INTEGER, filter TEXT, seeing_arcsec REAL, airmass REAL, quality TEXT,
    FOREIGN KEY (telescope_id) REFERENCES telescope (telescope_id),
    FOREIGN KEY (target_id) REFERENCES target (target_id),
    FOREIGN KEY (astronomer_id) REFERENCES astronomer (astronomer_id)
);
CREATE TABLE maintenance (
    telescope_id INTEGER, start_date DATE, end_date DATE, reason TEXT, cost_eur INTEGER,
    PRIMARY KEY (telescope_id, start_date),
    FOREIGN KEY (telescope_id) REFERENCES telescope (telescope_id)
);
"""

SITES = [
    ("Cerro Pálido", "Chile", 2640, -29.81, -70.62, 311), ("Roque Viejo", "Spain", 2320, 28.71, -17.88, 262),
    ("Mount Tarrow", "Australia", 1190, -31.42, 149.21, 204), ("Höhenwarte", "Switzerland", 3110, 46.55, 7.98, 131),
    ("Hoshimi-dake", "Japan", 1780, 35.94, 138.47, 149), ("Cerro Alto Verde", "Chile", 3020, -24.66, -70.11, 324),
]  # fmt: skip
TELESCOPES = [
    ("Atacama Eye", 1, 4.1, 14.2, "A", "1998-03-14", "O"), ("Small Pálido", 1, 0.9, 7.1, "E", "1983-07-02", "O"),
    ("Gran Isla", 2, 3.6, 12.8, "A", "2005-10-21", "O"), ("Trade Wind", 2, 1.5, 9.4, "E", "1991-05-30", "O"),
    ("Tarrow Survey", 3, 1.3, 4.6, "E", "2010-02-11", "O"), ("Tarrow Classic", 3, 0.6, 8.3, "E", "1967-09-18", "R"),
    ("Alpenauge", 4, 1.0, 6.9, "E", "1974-12-01", "M"), ("Hoshi One", 5, 1.9, 11.5, "A", "2001-04-04", "O"),
    ("Hoshi Mini", 5, 0.5, 3.1, "E", "2016-08-08", "O"), ("Verde Giant", 6, 6.4, 21.7, "A", "2014-11-27", "O"),
    ("Verde Robot", 6, 1.2, 5.2, "A", "2019-06-15", "O"), ("Old Refractor", 4, 0.4, 6.0, "E", "1931-08-20", "R"),
]  # fmt: skip
PEOPLE = [
    ("Rosa Quintana", "Universidad del Norte", "Chile", 1989, None),
    ("Emil Stocker", "ETH Zürich", "Switzerland", 1994, None),
    ("Aya Fujimori", "Kyoto Star Institute", "Japan", 2001, None),
    ("Liam Corrigan", "Southern Sky Centre", "Australia", 1998, 1),
    ("Marta Iglesias", "Instituto Canario", "Spain", 2006, 1), ("Tobias Rüegg", "ETH Zürich", "Switzerland", 2012, 2),
    ("Sota Kimura", "Kyoto Star Institute", "Japan", 2015, 3),
    ("Pía Valdés", "Universidad del Norte", "Chile", 2014, 1),
    ("Zoe Hartnett", "Southern Sky Centre", "Australia", 2018, 4),
    ("Diego Luna", "Universidad del Norte", "Chile", 2020, 8),
    ("Clara Oriol", "Instituto Canario", "Spain", 2019, 5), ("Nadja Frei", "ETH Zürich", "Switzerland", 2021, 2),
]  # fmt: skip
CLASSES = ["G", "S", "N", "C", "P"]
CONSTELLATIONS = ["Orion", "Lyra", "Cygnus", "Andromeda", "Carina", "Pegasus", "Draco"]
NAMES = ["Lantern Nebula", "Twin Pearls", "Ghost Spiral", "Ruby Star", "Anvil Cluster", "Quiet Giant", "Feather Galaxy"]
REASONS = ["mirror cleaning", "dome repair", "software update", "new camera"]


def _targets(rng: Random) -> list[tuple]:
    """Few objects have a common name, and not every distance has been measured."""
    targets = []
    for number in range(1, 61):
        kind = rng.choice(CLASSES)
        name = NAMES[number // 8 - 1] if number % 8 == 0 else None
        distance = None if rng.random() < 0.2 else round(10 ** rng.uniform(1, 6), 1)
        where = (round(rng.uniform(0, 360), 3), round(rng.uniform(-75, 75), 3))
        brightness = round(rng.uniform(2.1, 17.8), 2)
        sky = rng.choice(CONSTELLATIONS)
        targets.append((number, f"DSK {1000 + 37 * number}", name, kind, sky, brightness, distance, *where))
    return targets


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; retired telescopes take no part, and repairs may still be going on."""
    working = [number for number, telescope in enumerate(TELESCOPES, 1) if telescope[-1] != "R"]
    observations = []
    for number in range(1, 1101):
        night = day_after("2020-01-01", number + rng.randrange(6))
        seeing = None if rng.random() < 0.1 else round(rng.uniform(0.4, 3.2), 2)
        target = int(57 * rng.random() ** 1.2) + 1
        exposure = rng.choice([30, 60, 120, 300, 600, 900, 1800])
        place = (rng.choice(working), target, int(12 * rng.random() ** 1.2) + 1)
        sky = (rng.choice("UBVRI"), seeing, round(rng.uniform(1, 2.4), 2), rng.choice("AAABBCX"))
        observations.append((number, *place, night, exposure, *sky))
    repairs = []
    for telescope in working:
        for visit in range(rng.randrange(1, 6)):
            start = day_after("2020-02-01", visit * 280 + rng.randrange(200))
            end = None if start > "2022-11-01" else day_after(start, rng.randrange(1, 40))
            repairs.append((telescope, start, end, rng.choice(REASONS), rng.randrange(400, 42000)))
    people = []
    for number, (name, institute, country, year, mentor) in enumerate(PEOPLE, 1):
        email = None if number % 5 == 0 else f"observer{number}@sky.example"
        people.append((number, name, institute, country, year, email, mentor))
    return {
        "site": [(number, *site) for number, site in enumerate(SITES, 1)],
        "telescope": [(number, *telescope) for number, telescope in enumerate(TELESCOPES, 1)],
        "astronomer": people,
        "target": _targets(rng),
        "observation": observations,
        "maintenance": repairs,
    }


CSV_ENCODINGS = {"site": "cp1252", "observation": "utf-8-sig"}

DESCRIPTIONS = {
    "site": {
        "site_id": ("site id", "unique id of the site", "integer", ""),
        "name": ("site name", "name of the mountain or place", "text", ""),
        "country": ("country", "country of the site, in English", "text", ""),
        "altitude_m": ("altitude", "height above the sea in metres", "integer", ""),
        "latitude": ("latitude", "degrees north", "real", "from -90° to +90°; negative: south"),
        "longitude": ("longitude", "degrees east", "real", "negative: west of Greenwich"),
        "clear_nights": ("clear nights", "usable nights in a normal year", "integer", ""),
    },
    "telescope": {
        "telescope_id": ("telescope id", "unique id of the telescope", "integer", ""),
        "name": ("telescope name", "name of the telescope", "text", ""),
        "site_id": ("site id", "site where it stands", "integer", ""),
        "Aperture (m)": ("aperture", "diameter of the main mirror or lens in metres", "real", ""),
        "Focal Length (m)": ("focal length", "focal length in metres", "real", "f-number = focal length / aperture"),
        "mount": ("mount", "kind of mount", "text", "A: altazimuth, E: equatorial"),
        "first_light": ("first light", "date of the first observation", "date", "YYYY-MM-DD"),
        "status": ("status", "state of the telescope", "text", "O: operating, M: under modernisation, R: retired"),
    },
    "astronomer": {
        "astronomer_id": ("astronomer id", "unique id of the astronomer", "integer", ""),
        "name": ("astronomer name", "full name", "text", ""),
        "institute": ("institute", "place of work", "text", ""),
        "country": ("country", "country of the institute", "text", ""),
        "degree_year": ("degree year", "year of the doctorate", "integer", ""),
        "email": ("email", "e-mail address", "text", "NULL: none given"),
        "mentor_id": ("mentor id", "astronomer who guided the doctorate", "integer", "NULL: not one of ours"),
    },
    "target": {
        "target_id": ("target id", "unique id of the target", "integer", ""),
        "designation": ("designation", "catalogue number", "text", "DSK and a number"),
        "common_name": ("common name", "popular name", "text", "NULL: none"),
        "class": ("class", "class of object", "text", "G: galaxy\nS: star\nN: nebula\nC: cluster\nP: planet"),
        "constellation": ("constellation", "constellation in which it is seen", "text", ""),
        "magnitude": ("magnitude", "apparent magnitude", "real", "the smaller, the brighter"),
        "distance_ly": ("distance", "distance in light years", "real", "NULL: not measured"),
        "ra_deg": ("right ascension", "right ascension in degrees", "real", ""),
        "dec_deg": ("declination", "declination in degrees", "real", ""),
    },
    "observation": {
        "observation_id": ("observation id", "unique id of the observation", "integer", ""),
        "telescope_id": ("telescope id", "the telescope", "integer", ""),
        "target_id": ("target id", "the target", "integer", ""),
        "astronomer_id": ("astronomer id", "the observer", "integer", ""),
        "night": ("night", "date on which the night began", "date", "YYYY-MM-DD"),
        "Exposure (s)": ("exposure", "exposure time in seconds", "integer", ""),
        "filter": ("filter", "colour filter", "text", "U: ultraviolet, B: blue, V: visual, R: red, I: infrared"),
        "seeing_arcsec": (
            "seeing",
            "blur by the air in seconds of arc",
            "real",
            "smaller is better; NULL: not measured",
        ),
        "airmass": ("airmass", "amount of air in the line of sight", "real", "1 is straight up"),
        "quality": ("quality", "quality of the result", "text", "A: good, B: usable, C: poor, X: failed"),
    },
    "maintenance": {
        "telescope_id": ("telescope id", "the telescope", "integer", ""),
        "start_date": ("start date", "first day of the work", "date", "YYYY-MM-DD"),
        "end_date": ("end date", "last day of the work", "date", "NULL: still going on"),
        "reason": ("reason", "what was done", "text", ""),
        "cost_eur": ("cost", "cost in euros", "integer", ""),
    },
}

QUESTIONS = [
    (
        "simple",
        "List the name and the altitude of the sites in Chile.",
        "",
        "SELECT name, altitude_m FROM site WHERE country = 'Chile'",
    ),
    (
        "simple",
        "How many telescopes have an aperture of more than 1.5 metres?",
        "aperture refers to `Aperture (m)`",
        "SELECT COUNT(*) FROM telescope WHERE `Aperture (m)` > 1.5",
    ),
    (
        "simple",
        "What are the names of the retired telescopes?",
        "retired refers to status = 'R'",
        "SELECT name FROM telescope WHERE status = 'R'",
    ),
    (
        "simple",
        "Which site has the most clear nights? Give the name.",
        "",
        "SELECT name FROM site ORDER BY clear_nights DESC LIMIT 1",
    ),
    (
        "simple",
        "List the common names of the targets that have one.",
        "have a common name refers to common_name IS NOT NULL",
        "SELECT common_name FROM target WHERE common_name IS NOT NULL",
    ),
    (
        "simple",
        "What is the designation of the brightest target?",
        "brightest refers to MIN(magnitude)",
        "SELECT designation FROM target ORDER BY magnitude LIMIT 1",
    ),
    (
        "simple",
        "How many observations failed?",
        "failed refers to quality = 'X'",
        "SELECT COUNT(*) FROM observation WHERE quality = 'X'",
    ),
    (
        "simple",
        "What was the total cost of the dome repairs?",
        "dome repair refers to reason = 'dome repair'",
        "SELECT SUM(cost_eur) FROM maintenance WHERE reason = 'dome repair'",
    ),
    (
        "moderate",
        "List the names of the telescopes that stand at a site in Spain or Japan.",
        "",
        "SELECT T1.name FROM telescope AS T1 INNER JOIN site AS T2 ON T1.site_id = T2.site_id "
        "WHERE T2.country IN ('Spain', 'Japan')",
    ),
    (
        "moderate",
        "Give the name of each astronomer who has a mentor, together with the name of the mentor.",
        "",
        "SELECT T1.name, T2.name FROM astronomer AS T1 INNER JOIN astronomer AS T2 ON T1.mentor_id = T2.astronomer_id",
    ),
    (
        "moderate",
        "How many different galaxies did the telescope Gran Isla observe?",
        "galaxy refers to class = 'G'",
        "SELECT COUNT(DISTINCT T3.target_id) FROM telescope AS T1 INNER JOIN observation AS T2 "
        "ON T1.telescope_id = T2.telescope_id INNER JOIN target AS T3 ON T2.target_id = T3.target_id "
        "WHERE T1.name = 'Gran Isla' AND T3.class = 'G'",
    ),
    (
        "moderate",
        "List the designations of the targets that have never been observed.",
        "",
        "SELECT designation FROM target WHERE target_id NOT IN (SELECT target_id FROM observation)",
    ),
    (
        "moderate",
        "What is the total exposure time in hours of the observations made in 2021?",
        "hours = DIVIDE(SUM(`Exposure (s)`), 3600); made in 2021 refers to night LIKE '2021%'",
        "SELECT CAST(SUM(`Exposure (s)`) AS REAL) / 3600 FROM observation WHERE night LIKE '2021%'",
    ),
    (
        "challenging",
        "For each telescope with an f-number above 6, give its name and its f-number, the highest f-number first.",
        "f-number = DIVIDE(`Focal Length (m)`, `Aperture (m)`)",
        "SELECT name, `Focal Length (m)` / `Aperture (m)` FROM telescope "
        "WHERE `Focal Length (m)` / `Aperture (m)` > 6 ORDER BY `Focal Length (m)` / `Aperture (m)` DESC",
    ),
    (
        "challenging",
        "Which astronomer has the highest share of good observations? Give the name and the share in percent.",
        "good refers to quality = 'A'; share = DIVIDE(COUNT(quality = 'A'), COUNT(observation_id)) * 100",
        "SELECT T1.name, CAST(SUM(CASE WHEN T2.quality = 'A' THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) "
        "FROM astronomer AS T1 INNER JOIN observation AS T2 ON T1.astronomer_id = T2.astronomer_id "
        "GROUP BY T1.astronomer_id "
        "ORDER BY CAST(SUM(CASE WHEN T2.quality = 'A' THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) DESC LIMIT 1",
    ),
    (
        "challenging",
        "What are the names of the astronomers who made at least 8 observations with a telescope "
        "at a site in their own country?",
        "own country refers to the country of the astronomer",
        "SELECT T1.name FROM astronomer AS T1 INNER JOIN observation AS T2 ON T1.astronomer_id = T2.astronomer_id "
        "INNER JOIN telescope AS T3 ON T2.telescope_id = T3.telescope_id INNER JOIN site AS T4 "
        "ON T3.site_id = T4.site_id WHERE T1.country = T4.country GROUP BY T1.astronomer_id HAVING COUNT(*) >= 8",
    ),
]
