"""A handball league: clubs, players, the games of two seasons and what each player did in them."""

from random import Random

from demo_domains import day_after

SEED = 505

SCHEMA = """
CREATE TABLE club (
    club_id INTEGER PRIMARY KEY, name TEXT, city TEXT, founded INTEGER
);
CREATE TABLE player (
    player_id INTEGER PRIMARY KEY, name TEXT, club_id INTEGER, position TEXT, birth_date DATE, height_cm INTEGER,
    FOREIGN KEY (club_id) REFERENCES club (club_id)
);
CREATE TABLE game (
    game_id INTEGER PRIMARY KEY, season TEXT, game_date DATE, home_club_id INTEGER, away_club_id INTEGER,
    home_goals INTEGER, away_goals INTEGER, attendance INTEGER,
    FOREIGN KEY (home_club_id) REFERENCES club (club_id),
    FOREIGN KEY (away_club_id) REFERENCES club (club_id)
);
CREATE TABLE player_game (
    player_id INTEGER, game_id INTEGER, goals INTEGER, suspensions INTEGER,
    PRIMARY KEY (player_id, game_id),
    FOREIGN KEY (player_id) REFERENCES player (player_id),
    FOREIGN KEY (game_id) REFERENCES game (game_id)
);
"""

CLUBS = [
    ("SV Falken", "Kiel", 1921), ("HC Meteor", "Århus", 1934), ("Vikings Malmö", "Malmö", 1948),
    ("TSV Anker", "Lübeck", 1898), ("Nordic Storm", "Århus", 1987), ("HB Sirius", "Göteborg", 1963),
    ("Hanse Eagles", "Lübeck", 2003), ("Fjord United", "Oslo", 1975),
]  # fmt: skip
POSITIONS = ["GK", "LW", "RW", "LB", "RB", "CB", "PV", "CB"]
FIRST = ["Lars", "Mikkel", "Jonas", "Søren", "Anders", "Emil", "Torben", "Pål", "Björn", "Finn", "Henrik", "Øyvind"]
LAST = ["Holm", "Dahl", "Krogh", "Lund", "Bergström", "Voss", "Thiele", "Nygård", "Petersen", "Hald", "Ström", "Rask"]
TOP_GOALS = {"GK": 0, "LW": 6, "RW": 6, "LB": 7, "RB": 7, "CB": 6, "PV": 5}


def _players(rng: Random) -> list[tuple]:
    """Eight players a club; every pair of first and last name occurs once."""
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    rng.shuffle(names)
    players = []
    for number in range(1, 65):
        height = None if rng.random() < 0.12 else rng.randrange(176, 209)
        born = day_after("1986-01-01", rng.randrange(6900))
        players.append((number, names[number], (number + 7) // 8, POSITIONS[(number - 1) % 8], born, height))
    return players


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; the goals of the players add up to the score of the game."""
    players, games, lines = _players(rng), [], []
    for season, start in (("2021/22", "2021-09-04"), ("2022/23", "2022-09-03")):
        pairs = [(home, away) for home in range(1, 9) for away in range(1, 9) if home != away]
        rng.shuffle(pairs)
        for place, (home, away) in enumerate(pairs):
            number = len(games) + 1
            score = {home: 0, away: 0}
            for player, _, club, position, _, _ in players:
                if club in score and rng.random() < 0.85:
                    goals = rng.randrange(0, TOP_GOALS[position] + 1 + (club == home) + (player % 13 == 0) * 2)
                    goals = 0 if position == "GK" else goals
                    lines.append((player, number, goals, rng.choice([0, 0, 0, 1, 1, 2])))
                    score[club] += goals
            crowd = None if rng.random() < 0.06 else rng.randrange(350, 5200)
            day = day_after(start, place // 4 * 14 + place % 2)
            games.append((number, season, day, home, away, score[home], score[away], crowd))
    return {
        "club": [(number, *club) for number, club in enumerate(CLUBS, 1)],
        "player": players,
        "game": games,
        "player_game": lines,
    }


DESCRIPTIONS = {
    "club": {
        "club_id": ("club id", "unique id of the club", "integer", ""),
        "name": ("club name", "name of the club", "text", ""),
        "city": ("city", "home city of the club", "text", "Århus, Malmö, Göteborg in the local spelling"),
        "founded": ("founded", "year of foundation", "integer", ""),
    },
    "player": {
        "player_id": ("player id", "unique id of the player", "integer", ""),
        "name": ("player name", "first and last name", "text", ""),
        "club_id": ("club id", "club of the player", "integer", ""),
        "position": (
            "position",
            "position on the court",
            "text",
            "GK: goalkeeper, LW: left wing, RW: right wing, LB: left back, RB: right back, CB: centre back, PV: pivot",
        ),
        "birth_date": ("birth date", "date of birth", "date", "YYYY-MM-DD"),
        "height_cm": ("height", "height in centimetres", "integer", "NULL: not measured"),
    },
    "game": {
        "game_id": ("game id", "unique id of the game", "integer", ""),
        "season": ("season", "season of the game", "text", "2021/22 or 2022/23"),
        "game_date": ("game date", "day of the game", "date", "YYYY-MM-DD"),
        "home_club_id": ("home club id", "club that plays at home", "integer", ""),
        "away_club_id": ("away club id", "club that is the guest", "integer", ""),
        "home_goals": ("home goals", "goals of the home club", "integer", ""),
        "away_goals": ("away goals", "goals of the away club", "integer", "home goals > away goals: home win"),
        "attendance": ("attendance", "number of spectators", "integer", "NULL: not counted"),
    },
    "player_game": {
        "player_id": ("player id", "the player", "integer", ""),
        "game_id": ("game id", "the game the player took part in", "integer", ""),
        "goals": ("goals", "goals the player scored in the game", "integer", ""),
        "suspensions": ("suspensions", "two-minute suspensions of the player in the game", "integer", ""),
    },
}

QUESTIONS = [
    ("simple", "How many clubs were founded before 1950?", "", "SELECT COUNT(*) FROM club WHERE founded < 1950"),
    (
        "simple",
        "List the names of the clubs from Lübeck.",
        "Lübeck is a city",
        "SELECT name FROM club WHERE city = 'Lübeck'",
    ),
    (
        "simple",
        "What are the names of the players whose height is not known?",
        "height is not known refers to height_cm IS NULL",
        "SELECT name FROM player WHERE height_cm IS NULL",
    ),
    (
        "simple",
        "How many players are goalkeepers?",
        "goalkeeper refers to position = 'GK'",
        "SELECT COUNT(*) FROM player WHERE position = 'GK'",
    ),
    (
        "simple",
        "What is the name of the youngest player?",
        "youngest refers to MAX(birth_date)",
        "SELECT name FROM player ORDER BY birth_date DESC LIMIT 1",
    ),
    (
        "simple",
        "What is the average attendance in the season 2022/23?",
        "",
        "SELECT AVG(attendance) FROM game WHERE season = '2022/23'",
    ),
    (
        "simple",
        "How many games did the home club win?",
        "home club won refers to home_goals > away_goals",
        "SELECT COUNT(*) FROM game WHERE home_goals > away_goals",
    ),
    (
        "simple",
        "List the date and the attendance of the five games with the highest attendance, the highest first.",
        "",
        "SELECT game_date, attendance FROM game ORDER BY attendance DESC LIMIT 5",
    ),
    (
        "moderate",
        "List the names of the pivots who play for a club from Århus.",
        "pivot refers to position = 'PV'; Århus is a city",
        "SELECT T1.name FROM player AS T1 INNER JOIN club AS T2 ON T1.club_id = T2.club_id "
        "WHERE T1.position = 'PV' AND T2.city = 'Århus'",
    ),
    (
        "moderate",
        "Which player scored the most goals over all games? Give the name and the number of goals.",
        "",
        "SELECT T1.name, SUM(T2.goals) FROM player AS T1 INNER JOIN player_game AS T2 ON T1.player_id = T2.player_id "
        "GROUP BY T1.player_id ORDER BY SUM(T2.goals) DESC LIMIT 1",
    ),
    (
        "moderate",
        "Give the name of the home club and the name of the away club of the game with the largest attendance.",
        "",
        "SELECT T2.name, T3.name FROM game AS T1 INNER JOIN club AS T2 ON T1.home_club_id = T2.club_id "
        "INNER JOIN club AS T3 ON T1.away_club_id = T3.club_id ORDER BY T1.attendance DESC LIMIT 1",
    ),
    (
        "moderate",
        "For each club, give its name and the average height of its players.",
        "",
        "SELECT T1.name, AVG(T2.height_cm) FROM club AS T1 INNER JOIN player AS T2 ON T1.club_id = T2.club_id "
        "GROUP BY T1.club_id",
    ),
    (
        "moderate",
        "List the different last names of the goalkeepers.",
        "goalkeeper refers to position = 'GK'; last name = SUBSTR(name, INSTR(name, ' ') + 1)",
        "SELECT DISTINCT SUBSTR(name, INSTR(name, ' ') + 1) FROM player WHERE position = 'GK'",
    ),
    (
        "moderate",
        "List the names of the players who are taller than the average player.",
        "taller than the average refers to height_cm > AVG(height_cm) of all players",
        "SELECT name FROM player WHERE height_cm > (SELECT AVG(height_cm) FROM player)",
    ),
    (
        "challenging",
        "How many games did HC Meteor win in the season 2021/22, at home or away?",
        "HC Meteor is the name of a club; a club wins with more goals than the other club",
        "SELECT COUNT(*) FROM game AS T1 INNER JOIN club AS T2 ON T2.club_id IN (T1.home_club_id, T1.away_club_id) "
        "WHERE T2.name = 'HC Meteor' AND T1.season = '2021/22' AND ((T1.home_club_id = T2.club_id "
        "AND T1.home_goals > T1.away_goals) OR (T1.away_club_id = T2.club_id AND T1.away_goals > T1.home_goals))",
    ),
    (
        "challenging",
        "How many goals did each club score in total in the season 2022/23? Give the name of the club and the goals, "
        "the club with the most goals first.",
        "goals of a club = home_goals of its home games + away_goals of its away games",
        "SELECT T1.name, SUM(CASE WHEN T2.home_club_id = T1.club_id THEN T2.home_goals ELSE T2.away_goals END) "
        "FROM club AS T1 INNER JOIN game AS T2 ON T1.club_id = T2.home_club_id OR T1.club_id = T2.away_club_id "
        "WHERE T2.season = '2022/23' GROUP BY T1.club_id ORDER BY "
        "SUM(CASE WHEN T2.home_club_id = T1.club_id THEN T2.home_goals ELSE T2.away_goals END) DESC",
    ),
]
