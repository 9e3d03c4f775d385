"""A hardware store: a tree of categories, products, customers and their orders."""

from random import Random

from demo_domains import day_after

SEED = 711

SCHEMA = """
CREATE TABLE category (
    category_id INTEGER PRIMARY KEY, name TEXT, parent_id INTEGER,
    FOREIGN KEY (parent_id) REFERENCES category (category_id)
);
CREATE TABLE product (
    product_id INTEGER PRIMARY KEY, name TEXT, category_id INTEGER, "Unit Price" REAL, stock INTEGER,
    "Discontinued (Y/N)" TEXT,
    FOREIGN KEY (category_id) REFERENCES category (category_id)
);
CREATE TABLE customer (
    customer_id INTEGER PRIMARY KEY, name TEXT, type TEXT, city TEXT, email TEXT
);
CREATE TABLE "order" (
    order_id INTEGER PRIMARY KEY, customer_id INTEGER, "Order Date" DATE, status TEXT, "Delivery (Y/N)" TEXT,
    FOREIGN KEY (customer_id) REFERENCES customer (customer_id)
);
CREATE TABLE order_line (
    order_id INTEGER, product_id INTEGER, quantity INTEGER, discount_pct INTEGER,
    PRIMARY KEY (order_id, product_id),
    FOREIGN KEY (order_id) REFERENCES "order" (order_id),
    FOREIGN KEY (product_id) REFERENCES product (product_id)
);
"""

CATEGORIES = [
    ("Tools", None), ("Hand Tools", 1), ("Power Tools", 1), ("Garden", None), ("Watering", 4), ("Fasteners", None),
    ("Screws", 6), ("Nails", 6), ("Paint", None),
]  # fmt: skip
PRODUCTS = [
    ("Claw Hammer 16oz", 2, 18.5), ("Rubber Mallet", 2, 12.9), ("Chisel Set", 2, 34.0), ("Spirit Level 60cm", 2, 21.75),
    ("Hand Saw", 2, 16.2), ("Folding Rule", 2, 6.4), ("Cordless Drill 18V", 3, 129.0), ("Jigsaw 650W", 3, 84.5),
    ("Belt Sander", 3, 99.9), ("Angle Grinder", 3, 72.3), ("Heat Gun", 3, 45.6), ("Hedge Shears", 4, 27.8),
    ("Wheelbarrow", 4, 69.0), ("Garden Rake", 4, 15.3), ("Garden Hose 25m", 5, 38.9), ("Sprinkler", 5, 19.95),
    ("Watering Can 10l", 5, 11.6), ("Wood Screws 4x40", 7, 5.25), ("Wood Screws 5x60", 7, 6.1),
    ("Deck Screws", 7, 9.85),
    ("Wall Plugs", 6, 4.3), ("Wire Nails 80mm", 8, 3.95), ("Roofing Nails", 8, 5.7), ("Wall Paint White 10l", 9, 44.0),
    ("Wood Stain Oak", 9, 23.4), ("Masking Tape", 9, 3.2), ("Paint Roller", 9, 8.75), ("Metal Primer", 9, 17.9),
]  # fmt: skip
CITIES = ["São Paulo", "Campinas", "Santos", "Sorocaba"]
FIRST = ["Ana", "Bruno", "Carla", "Diego", "Elisa", "Fábio", "Gisele", "Hugo", "Íris", "José"]
LAST = ["Araújo", "Braga", "Conceição", "Dutra"]


def _customers(rng: Random) -> list[tuple]:
    """Forty private customers and eight companies; companies carry the type T, for trade."""
    people = [f"{FIRST[number % 10]} {LAST[number // 10]}" for number in range(40)]
    firms = [f"{name} Ltda" for name in ("Construir", "Casa Nova", "Pedra Fina", "Obra Certa", "Telhas Sul")]
    customers = []
    for number, name in enumerate(people + firms, 1):
        email = f"cliente{number}@exemplo.example" if rng.random() < 0.75 else None
        customers.append((number, name, "T" if name.endswith("Ltda") else "P", rng.choice(CITIES), email))
    return customers


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; three customers never order and two products are never sold."""
    products = []
    for number, (name, category, price) in enumerate(PRODUCTS, 1):
        stock = 0 if rng.random() < 0.15 else rng.randrange(3, 260)
        products.append((number, name, category, price, stock, "Y" if rng.random() < 0.2 else "N"))
    orders, lines = [], []
    for number in range(1, 381):
        date = day_after("2022-01-03", number * 19 // 10)
        customer = rng.randrange(41, 46) if rng.random() < 0.3 else int(37 * rng.random() ** 1.3) + 1
        orders.append((number, customer, date, rng.choice("PPPPSSR"), rng.choice("YN")))
        for product in sorted(rng.sample(range(1, 27), rng.randrange(1, 5))):
            bulk = rng.randrange(5, 60) if 18 <= product <= 23 else rng.randrange(1, 5)
            lines.append((number, product, bulk, rng.choice([None, None, None, 5, 10, 20])))
    return {
        "category": [(number, *category) for number, category in enumerate(CATEGORIES, 1)],
        "product": products,
        "customer": _customers(rng),
        "order": orders,
        "order_line": lines,
    }


CSV_ENCODINGS = {"customer": "cp1252"}

DESCRIPTIONS = {
    "category": {
        "category_id": ("category id", "unique id of the category", "integer", ""),
        "name": ("category name", "name of the category", "text", ""),
        "parent_id": ("parent id", "category that this one is a part of", "integer", "NULL: main category"),
    },
    "product": {
        "product_id": ("product id", "unique id of the product", "integer", ""),
        "name": ("product name", "name of the product", "text", ""),
        "category_id": ("category id", "category of the product", "integer", ""),
        "Unit Price": ("unit price", "price of one piece or pack in euros", "real", ""),
        "stock": ("stock", "number of pieces in the store", "integer", "0: out of stock"),
        "Discontinued (Y/N)": ("discontinued", "whether it is no longer made", "text", "Y: yes, N: no"),
    },
    "customer": {
        "customer_id": ("customer id", "unique id of the customer", "integer", ""),
        "name": ("customer name", "name of the person or company", "text", ""),
        "type": ("type", "type of customer", "text", "P: private person, T: trade (company)"),
        "city": ("city", "city of the customer, such as São Paulo", "text", ""),
        "email": ("email", "e-mail address", "text", "NULL: none given"),
    },
    "order": {
        "order_id": ("order id", "unique id of the order", "integer", ""),
        "customer_id": ("customer id", "customer who ordered", "integer", ""),
        "Order Date": ("order date", "day of the order", "date", "YYYY-MM-DD"),
        "status": ("status", "status of the order", "text", "P: paid, S: sent but not paid, R: returned"),
        "Delivery (Y/N)": ("delivery", "whether the order was delivered to the customer", "text", "N: picked up"),
    },
    "order_line": {
        "order_id": ("order id", "the order", "integer", ""),
        "product_id": ("product id", "the product ordered", "integer", ""),
        "quantity": ("quantity", "number of pieces or packs", "integer", ""),
        "discount_pct": ("discount", "discount in per cent", "integer", "NULL: no discount"),
    },
}

QUESTIONS = [
    (
        "simple",
        "List the name and the unit price of the products that cost more than 70 euros.",
        "",
        "SELECT name, `Unit Price` FROM product WHERE `Unit Price` > 70",
    ),
    (
        "simple",
        "How many orders were returned?",
        "returned refers to status = 'R'",
        "SELECT COUNT(*) FROM `order` WHERE status = 'R'",
    ),
    (
        "simple",
        "What are the names of the products that are out of stock?",
        "out of stock refers to stock = 0",
        "SELECT name FROM product WHERE stock = 0",
    ),
    (
        "simple",
        "How many private customers live in São Paulo?",
        "private customer refers to type = 'P'",
        "SELECT COUNT(*) FROM customer WHERE type = 'P' AND city = 'São Paulo'",
    ),
    (
        "simple",
        "How many customers have given no email?",
        "no email refers to email IS NULL",
        "SELECT COUNT(*) FROM customer WHERE email IS NULL",
    ),
    (
        "simple",
        "List the names of the three cheapest products, the cheapest first.",
        "",
        "SELECT name FROM product ORDER BY `Unit Price` LIMIT 3",
    ),
    (
        "simple",
        "How many different products have been ordered?",
        "",
        "SELECT COUNT(DISTINCT product_id) FROM order_line",
    ),
    (
        "simple",
        "List the names of the products whose name contains the word Nails or the word Screws.",
        "",
        "SELECT name FROM product WHERE name LIKE '%Nails%' OR name LIKE '%Screws%'",
    ),
    (
        "moderate",
        "List the names of the products in the category Power Tools.",
        "",
        "SELECT T1.name FROM product AS T1 INNER JOIN category AS T2 ON T1.category_id = T2.category_id "
        "WHERE T2.name = 'Power Tools'",
    ),
    (
        "moderate",
        "Give the name of each subcategory together with the name of its main category.",
        "subcategory refers to parent_id IS NOT NULL; the main category is the one with category_id = parent_id",
        "SELECT T1.name, T2.name FROM category AS T1 INNER JOIN category AS T2 ON T1.parent_id = T2.category_id",
    ),
    (
        "moderate",
        "What are the names of the customers who have never placed an order?",
        "",
        "SELECT name FROM customer WHERE customer_id NOT IN (SELECT customer_id FROM `order`)",
    ),
    (
        "moderate",
        "Which product was ordered in the largest total quantity? Give the name and the total quantity.",
        "",
        "SELECT T1.name, SUM(T2.quantity) FROM product AS T1 INNER JOIN order_line AS T2 "
        "ON T1.product_id = T2.product_id GROUP BY T1.product_id ORDER BY SUM(T2.quantity) DESC LIMIT 1",
    ),
    (
        "moderate",
        "How many orders placed in 2023 by trade customers were delivered?",
        "trade customer refers to type = 'T'; delivered refers to `Delivery (Y/N)` = 'Y'; "
        "placed in 2023 refers to `Order Date` LIKE '2023%'",
        "SELECT COUNT(*) FROM customer AS T1 INNER JOIN `order` AS T2 ON T1.customer_id = T2.customer_id "
        "WHERE T1.type = 'T' AND T2.`Delivery (Y/N)` = 'Y' AND T2.`Order Date` LIKE '2023%'",
    ),
    (
        "challenging",
        "What is the total value in euros of the paid orders after discount, rounded to two decimals?",
        "paid refers to status = 'P'; value = SUM(quantity * `Unit Price` * (100 - discount_pct) / 100), "
        "where a missing discount_pct counts as 0; rounded refers to ROUND(value, 2)",
        "SELECT ROUND(SUM(T2.quantity * T3.`Unit Price` * (100 - COALESCE(T2.discount_pct, 0)) / 100), 2) "
        "FROM `order` AS T1 INNER JOIN order_line AS T2 ON T1.order_id = T2.order_id INNER JOIN product AS T3 "
        "ON T2.product_id = T3.product_id WHERE T1.status = 'P'",
    ),
    (
        "challenging",
        "Which products cost more than the average product of their own category? "
        "Give the name of the product and the name of its category.",
        "average product refers to AVG(`Unit Price`) of the products with the same category_id",
        "SELECT T1.name, T2.name FROM product AS T1 INNER JOIN category AS T2 ON T1.category_id = T2.category_id "
        "WHERE T1.`Unit Price` > (SELECT AVG(T3.`Unit Price`) FROM product AS T3 "
        "WHERE T3.category_id = T1.category_id)",
    ),
    (
        "challenging",
        "For each city, give the city, the number of orders that were delivered and the number that were picked up "
        "by customers from that city.",
        "delivered refers to `Delivery (Y/N)` = 'Y'; picked up refers to `Delivery (Y/N)` = 'N'",
        "SELECT T1.city, SUM(CASE WHEN T2.`Delivery (Y/N)` = 'Y' THEN 1 ELSE 0 END), "
        "SUM(CASE WHEN T2.`Delivery (Y/N)` = 'N' THEN 1 ELSE 0 END) FROM customer AS T1 INNER JOIN `order` AS T2 "
        "ON T1.customer_id = T2.customer_id GROUP BY T1.city",
    ),
]
