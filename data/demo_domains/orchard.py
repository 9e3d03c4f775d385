"""A fruit farm: plots, varieties, monthly harvests written as YYYYMM, and sales."""

from random import Random

SEED = 410

SCHEMA = """
CREATE TABLE plot (
    plot_id INTEGER PRIMARY KEY, name TEXT, area_ha REAL, soil TEXT, "Irrigated (Y/N)" TEXT
);
CREATE TABLE variety (
    variety_id INTEGER PRIMARY KEY, name TEXT, fruit TEXT, "Organic (Y/N)" TEXT
);
CREATE TABLE planting (
    plot_id INTEGER, variety_id INTEGER, planted_year INTEGER, trees INTEGER,
    PRIMARY KEY (plot_id, variety_id),
    FOREIGN KEY (plot_id) REFERENCES plot (plot_id),
    FOREIGN KEY (variety_id) REFERENCES variety (variety_id)
);
CREATE TABLE harvest (
    harvest_id INTEGER PRIMARY KEY, plot_id INTEGER, variety_id INTEGER, month TEXT, kilograms INTEGER, grade TEXT,
    FOREIGN KEY (plot_id, variety_id) REFERENCES planting (plot_id, variety_id)
);
CREATE TABLE buyer (
    buyer_id INTEGER PRIMARY KEY, name TEXT, kind TEXT, city TEXT
);
CREATE TABLE sale (
    sale_id INTEGER PRIMARY KEY, buyer_id INTEGER, variety_id INTEGER, month TEXT, kilograms INTEGER,
    "Price (EUR/kg)" REAL,
    FOREIGN KEY (buyer_id) REFERENCES buyer (buyer_id),
    FOREIGN KEY (variety_id) REFERENCES variety (variety_id)
);
"""

PLOTS = [
    ("North Slope", 4.2, "L", "Y"), ("Mill Field", 2.7, "C", "N"), ("River Strip", 3.1, "S", "Y"),
    ("Old Wall", 1.4, "L", "N"), ("Chapel Hill", 5.6, "C", "N"), ("Long Acre", 6.3, "L", "Y"),
    ("Fox Corner", 0.9, "S", "N"), ("East Gate", 3.8, "C", "Y"),
]  # fmt: skip
VARIETIES = [
    ("Goldmere", "apple", "N"), ("Red Harvest", "apple", "Y"), ("Kingsbloom", "apple", "N"),
    ("Frostbite", "apple", "Y"),
    ("Crème d'Or", "pear", "N"), ("Amberdrop", "pear", "Y"), ("Winter Bell", "pear", "N"),
    ("Nightshine", "cherry", "N"),
    ("Rubina", "cherry", "Y"), ("Blue Mirabel", "plum", "N"), ("Zwetschge Süß", "plum", "Y"),
    ("Sundust", "apricot", "N"),
]  # fmt: skip
MONTHS = {"apple": (8, 10), "pear": (8, 9), "cherry": (6, 7), "plum": (7, 9), "apricot": (7, 7)}
BUYERS = [
    ("Greenleaf Markets", "S", "Graz"), ("Café Morgenrot", "R", "Graz"), ("Juice Works", "P", "Linz"),
    ("Hofladen Berger", "S", "Wels"), ("Obst & Co", "S", "Linz"), ("Bistro Kornblume", "R", "Wien"),
    ("Marmalade Bros", "P", "Wien"), ("Saint Anne School", "X", "Graz"), ("Market Hall Steyr", "S", "Steyr"),
    ("Ciderhouse Enns", "P", "Enns"), ("Hotel Panorama", "R", "Wien"),
]  # fmt: skip


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; a variety is picked only where it is planted and only in its season."""
    pairs = [(plot, variety) for plot in range(1, 9) for variety in range(1, 13) if rng.random() < 0.36]
    plantings = [(*pair, rng.randrange(1994, 2019), rng.randrange(40, 420)) for pair in pairs]
    harvests, sales = [], []
    for year in (2020, 2021, 2022, 2023):
        for plot, variety, _, trees in plantings:
            first, last = MONTHS[VARIETIES[variety - 1][1]]
            for month in range(first, last + 1):
                kilograms = int(trees * rng.uniform(2, 14))
                grade = rng.choice(["1", "1", "2", "2", "3", None])
                harvests.append((len(harvests) + 1, plot, variety, f"{year}{month:02d}", kilograms, grade))
        for _ in range(70):
            variety = rng.randrange(1, 13)
            month = rng.randrange(MONTHS[VARIETIES[variety - 1][1]][0], 13)
            buyer = (int(10 * rng.random() ** 1.4) * 3 + 4) % 10 + 1
            price = round(rng.uniform(0.6, 4.8), 2)
            sales.append((len(sales) + 1, buyer, variety, f"{year}{month:02d}", rng.randrange(20, 900), price))
    return {
        "plot": [(number, *plot) for number, plot in enumerate(PLOTS, 1)],
        "variety": [(number, *variety) for number, variety in enumerate(VARIETIES, 1)],
        "planting": plantings,
        "harvest": harvests,
        "buyer": [(number, *buyer) for number, buyer in enumerate(BUYERS, 1)],
        "sale": sales,
    }


CSV_ENCODINGS = {"variety": "cp1252", "harvest": "utf-8-sig"}

DESCRIPTIONS = {
    "plot": {
        "plot_id": ("plot id", "unique id of the plot", "integer", ""),
        "name": ("plot name", "name of the plot", "text", ""),
        "area_ha": ("area", "area in hectares", "real", ""),
        "soil": ("soil", "kind of soil", "text", "L: loam, C: clay, S: sand"),
        "Irrigated (Y/N)": ("irrigated", "whether the plot is irrigated", "text", "Y: yes, N: no"),
    },
    "variety": {
        "variety_id": ("variety id", "unique id of the variety", "integer", ""),
        "name": ("variety name", "name of the variety, such as Crème d'Or", "text", ""),
        "fruit": ("fruit", "kind of fruit in the singular", "text", "apple, pear, cherry, plum, apricot"),
        "Organic (Y/N)": ("organic", "whether it is grown organically", "text", "Y: yes, N: no"),
    },
    "planting": {
        "plot_id": ("plot id", "the plot", "integer", ""),
        "variety_id": ("variety id", "the variety that grows there", "integer", ""),
        "planted_year": ("planted year", "year of planting", "integer", ""),
        "trees": ("trees", "number of trees", "integer", ""),
    },
    "harvest": {
        "harvest_id": ("harvest id", "unique id of the harvest", "integer", ""),
        "plot_id": ("plot id", "the plot", "integer", ""),
        "variety_id": ("variety id", "the variety", "integer", ""),
        "month": ("month", "month of the harvest", "text", "YYYYMM\nfor example 202109 is September 2021"),
        "kilograms": ("kilograms", "weight in kilograms", "integer", ""),
        "grade": ("grade", "quality grade", "text", "1: best, 2: good, 3: juice only; NULL: not graded"),
    },
    "buyer": {
        "buyer_id": ("buyer id", "unique id of the buyer", "integer", ""),
        "name": ("buyer name", "name of the buyer", "text", ""),
        "kind": ("kind", "kind of buyer", "text", "S: shop, R: restaurant, P: processor, X: other"),
        "city": ("city", "city of the buyer", "text", ""),
    },
    "sale": {
        "sale_id": ("sale id", "unique id of the sale", "integer", ""),
        "buyer_id": ("buyer id", "the buyer", "integer", ""),
        "variety_id": ("variety id", "the variety sold", "integer", ""),
        "month": ("month", "month of the sale", "text", "YYYYMM"),
        "kilograms": ("kilograms", "weight sold in kilograms", "integer", ""),
        "Price (EUR/kg)": ("price", "price of one kilogram in euros", "real", ""),
    },
}

QUESTIONS = [
    ("simple", "How many apple varieties are there?", "", "SELECT COUNT(*) FROM variety WHERE fruit = 'apple'"),
    (
        "simple",
        "List the name and the area of the plots that are not irrigated.",
        "not irrigated refers to `Irrigated (Y/N)` = 'N'",
        "SELECT name, area_ha FROM plot WHERE `Irrigated (Y/N)` = 'N'",
    ),
    (
        "simple",
        "What is the name of the largest plot?",
        "largest plot refers to MAX(area_ha)",
        "SELECT name FROM plot ORDER BY area_ha DESC LIMIT 1",
    ),
    (
        "simple",
        "List the names of the buyers that are restaurants.",
        "restaurant refers to kind = 'R'",
        "SELECT name FROM buyer WHERE kind = 'R'",
    ),
    (
        "simple",
        "How many harvests were not graded?",
        "not graded refers to grade IS NULL",
        "SELECT COUNT(*) FROM harvest WHERE grade IS NULL",
    ),
    (
        "simple",
        "How many kilograms were harvested in September 2021 in total?",
        "September 2021 refers to month = '202109'",
        "SELECT SUM(kilograms) FROM harvest WHERE month = '202109'",
    ),
    ("simple", "In how many different cities are there buyers?", "", "SELECT COUNT(DISTINCT city) FROM buyer"),
    (
        "simple",
        "What is the total area in hectares of the plots with clay soil?",
        "clay refers to soil = 'C'",
        "SELECT SUM(area_ha) FROM plot WHERE soil = 'C'",
    ),
    (
        "moderate",
        "List the names of the varieties planted on the plot Long Acre.",
        "",
        "SELECT T3.name FROM plot AS T1 INNER JOIN planting AS T2 ON T1.plot_id = T2.plot_id "
        "INNER JOIN variety AS T3 ON T2.variety_id = T3.variety_id WHERE T1.name = 'Long Acre'",
    ),
    (
        "moderate",
        "For each fruit, give the fruit and the total number of trees planted.",
        "",
        "SELECT T1.fruit, SUM(T2.trees) FROM variety AS T1 INNER JOIN planting AS T2 "
        "ON T1.variety_id = T2.variety_id GROUP BY T1.fruit",
    ),
    (
        "moderate",
        "Which buyer has never bought anything? Give the name.",
        "",
        "SELECT name FROM buyer WHERE buyer_id NOT IN (SELECT buyer_id FROM sale)",
    ),
    (
        "moderate",
        "What is the highest price per kilogram paid for an organic variety, and what is the name of that variety? "
        "Give the name first.",
        "organic refers to `Organic (Y/N)` = 'Y'",
        "SELECT T1.name, T2.`Price (EUR/kg)` FROM variety AS T1 INNER JOIN sale AS T2 "
        "ON T1.variety_id = T2.variety_id WHERE T1.`Organic (Y/N)` = 'Y' ORDER BY T2.`Price (EUR/kg)` DESC LIMIT 1",
    ),
    (
        "moderate",
        "For each year, give the year and the number of kilograms harvested in it.",
        "year = SUBSTR(month, 1, 4)",
        "SELECT SUBSTR(month, 1, 4), SUM(kilograms) FROM harvest GROUP BY SUBSTR(month, 1, 4)",
    ),
    (
        "challenging",
        "Which buyer brought in the most money in 2022? Give the name and the amount rounded to two decimals.",
        "money in euros = SUM(MULTIPLY(kilograms, `Price (EUR/kg)`)); in 2022 refers to month LIKE '2022%'",
        "SELECT T1.name, ROUND(SUM(T2.kilograms * T2.`Price (EUR/kg)`), 2) FROM buyer AS T1 "
        "INNER JOIN sale AS T2 ON T1.buyer_id = T2.buyer_id WHERE T2.month LIKE '2022%' GROUP BY T1.buyer_id "
        "ORDER BY SUM(T2.kilograms * T2.`Price (EUR/kg)`) DESC LIMIT 1",
    ),
    (
        "challenging",
        "List the names of the plots on which apples grow but no pears.",
        "apples and pears refer to the fruit of the planted varieties",
        "SELECT T1.name FROM plot AS T1 INNER JOIN planting AS T2 ON T1.plot_id = T2.plot_id INNER JOIN variety AS T3 "
        "ON T2.variety_id = T3.variety_id WHERE T3.fruit = 'apple' EXCEPT SELECT T1.name FROM plot AS T1 "
        "INNER JOIN planting AS T2 ON T1.plot_id = T2.plot_id INNER JOIN variety AS T3 "
        "ON T2.variety_id = T3.variety_id WHERE T3.fruit = 'pear'",
    ),
    (
        "challenging",
        "What percentage of the weight harvested on irrigated plots is of grade 1?",
        "irrigated refers to `Irrigated (Y/N)` = 'Y'; "
        "percentage = DIVIDE(SUM(kilograms where grade = '1'), SUM(kilograms)) * 100",
        "SELECT CAST(SUM(CASE WHEN T1.grade = '1' THEN T1.kilograms ELSE 0 END) AS REAL) * 100 / SUM(T1.kilograms) "
        "FROM harvest AS T1 INNER JOIN plot AS T2 ON T1.plot_id = T2.plot_id WHERE T2.`Irrigated (Y/N)` = 'Y'",
    ),
]
