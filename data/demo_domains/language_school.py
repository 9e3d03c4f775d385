"""A language school whose dates are written DD/MM/YYYY: teachers, courses, students and exams."""

from random import Random

from demo_domains import day_after

SEED = 911

SCHEMA = """
CREATE TABLE teacher (
    teacher_id INTEGER PRIMARY KEY, name TEXT, native_language TEXT, "Hourly Rate (EUR)" REAL, mentor_id INTEGER,
    FOREIGN KEY (mentor_id) REFERENCES teacher (teacher_id)
);
CREATE TABLE course (
    course_id INTEGER PRIMARY KEY, language TEXT, level TEXT, teacher_id INTEGER, start_date TEXT, hours INTEGER,
    price_eur INTEGER,
    FOREIGN KEY (teacher_id) REFERENCES teacher (teacher_id)
);
CREATE TABLE student (
    student_id INTEGER PRIMARY KEY, name TEXT, nationality TEXT, birth_year INTEGER
);
CREATE TABLE enrolment (
    student_id INTEGER, course_id INTEGER, status TEXT, paid_eur INTEGER,
    PRIMARY KEY (student_id, course_id),
    FOREIGN KEY (student_id) REFERENCES student (student_id),
    FOREIGN KEY (course_id) REFERENCES course (course_id)
);
CREATE TABLE exam (
    exam_id INTEGER PRIMARY KEY, student_id INTEGER, course_id INTEGER, exam_date TEXT, written INTEGER, oral INTEGER,
    FOREIGN KEY (student_id, course_id) REFERENCES enrolment (student_id, course_id)
);
"""

TEACHERS = [
    ("Ingrid Falk", "Swedish", 38.5, None), ("Pablo Requena", "Spanish", 34.0, None),
    ("Yuki Harada", "Japanese", 42.0, None),
    ("Claire Joubert", "French", 36.5, None), ("Sergio Molina", "Spanish", 29.5, 2),
    ("Aline Moreau", "French", 31.0, 4),
    ("Kaito Noda", "Japanese", 33.0, 3), ("Björn Ek", "Swedish", 27.5, 1), ("Lucía Prado", "Spanish", 28.0, 2),
    ("Hélène Rossignol", "French", 40.0, 4),
]  # fmt: skip
LANGUAGES = {"Swedish": (1, 8), "Spanish": (2, 5, 9), "Japanese": (3, 7), "French": (4, 6)}
LEVELS = {"A1": 0.36, "A2": 0.27, "B1": 0.19, "B2": 0.12, "C1": 0.06}
FIRST = ["Mei", "Omar", "Katya", "Liam", "Fatou", "Pavel", "Sofia", "Jonas", "Amara", "Tuğba"]
LAST = ["Chen", "Haddad", "Sokolova", "Byrne", "Diallo", "Dvořák", "Costa", "Weiß", "Eze", "Yıldız"]
NATIONS = ["CN", "EG", "UA", "IE", "SN", "CZ", "BR", "DE", "NG", "TR"]


def european(iso: str) -> str:
    """Turn YYYY-MM-DD into DD/MM/YYYY, which sorts wrongly as text, as in many a real database."""
    year, month, day = iso.split("-")
    return f"{day}/{month}/{year}"


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; who dropped out takes no exam, and some miss the oral part (NULL)."""
    courses, enrolments, exams = [], [], []
    for number in range(1, 37):
        language = rng.choice(list(LANGUAGES))
        level = rng.choices(list(LEVELS), list(LEVELS.values()))[0]
        start = day_after("2021-01-11", number * 23 % 37 * 27 + rng.randrange(10))
        hours = rng.choice([24, 30, 36, 48, 60])
        teacher = rng.choice(LANGUAGES[language])
        courses.append((number, language, level, teacher, european(start), hours, hours * rng.randrange(7, 12)))
        for student in sorted(rng.sample(range(1, 88), rng.randrange(5, 14))):
            status = rng.choice("FFFFDF")
            price = courses[-1][-1]
            enrolments.append((student, number, status, rng.choice([price, price, price, price // 2, None])))
            if status == "F" and rng.random() < 0.85:
                oral = None if rng.random() < 0.1 else rng.randrange(35, 101)
                day = european(day_after(start, 75 + rng.randrange(20)))
                exams.append((len(exams) + 1, student, number, day, rng.randrange(30, 101), oral))
    students = []
    for number in range(90):
        place = rng.randrange(10)
        name = f"{FIRST[number % 10]} {LAST[(number // 10 + number) % 10]}"
        students.append((number + 1, name, NATIONS[place], rng.randrange(1962, 2006)))
    return {
        "teacher": [(number, *teacher) for number, teacher in enumerate(TEACHERS, 1)],
        "course": courses,
        "student": students,
        "enrolment": enrolments,
        "exam": exams,
    }


DESCRIPTIONS = {
    "teacher": {
        "teacher_id": ("teacher id", "unique id of the teacher", "integer", ""),
        "name": ("teacher name", "full name", "text", ""),
        "native_language": ("native language", "first language of the teacher", "text", "English name"),
        "Hourly Rate (EUR)": ("hourly rate", "pay for one hour in euros", "real", ""),
        "mentor_id": ("mentor id", "teacher who looks after this one", "integer", "NULL: no mentor"),
    },
    "course": {
        "course_id": ("course id", "unique id of the course", "integer", ""),
        "language": ("language", "language taught", "text", "Swedish, Spanish, Japanese, French"),
        "level": ("level", "level of the course", "text", "A1 (beginner), A2, B1, B2, C1 (advanced)"),
        "teacher_id": ("teacher id", "teacher of the course", "integer", ""),
        "start_date": ("start date", "first day of the course", "text", "DD/MM/YYYY"),
        "hours": ("hours", "number of hours", "integer", ""),
        "price_eur": ("price", "price in euros", "integer", ""),
    },
    "student": {
        "student_id": ("student id", "unique id of the student", "integer", ""),
        "name": ("student name", "full name", "text", ""),
        "nationality": ("nationality", "two-letter country code", "text", "CN, EG, UA, IE, SN, CZ, BR, DE, NG, TR"),
        "birth_year": ("birth year", "year of birth", "integer", ""),
    },
    "enrolment": {
        "student_id": ("student id", "the student", "integer", ""),
        "course_id": ("course id", "the course", "integer", ""),
        "status": ("status", "how it ended", "text", "F: finished the course, D: dropped out"),
        "paid_eur": ("paid", "amount paid in euros", "integer", "NULL: nothing paid so far"),
    },
    "exam": {
        "exam_id": ("exam id", "unique id of the exam", "integer", ""),
        "student_id": ("student id", "the student", "integer", ""),
        "course_id": ("course id", "the course", "integer", ""),
        "exam_date": ("exam date", "day of the exam", "text", "DD/MM/YYYY"),
        "written": ("written", "points in the written part, 0 to 100", "integer", ""),
        "oral": ("oral", "points in the oral part, 0 to 100", "integer", "NULL: did not come to the oral part"),
    },
}

QUESTIONS = [
    ("simple", "How many Spanish courses are there?", "", "SELECT COUNT(*) FROM course WHERE language = 'Spanish'"),
    (
        "simple",
        "List the name and the native language of the teachers with an hourly rate above 35 euros.",
        "hourly rate refers to `Hourly Rate (EUR)`",
        "SELECT name, native_language FROM teacher WHERE `Hourly Rate (EUR)` > 35",
    ),
    (
        "simple",
        "How many students come from Brazil?",
        "come from Brazil refers to nationality = 'BR'",
        "SELECT COUNT(*) FROM student WHERE nationality = 'BR'",
    ),
    (
        "simple",
        "How many times did a student drop out of a course?",
        "drop out refers to status = 'D'",
        "SELECT COUNT(*) FROM enrolment WHERE status = 'D'",
    ),
    (
        "simple",
        "What is the average number of points in the written part of the exams?",
        "",
        "SELECT AVG(written) FROM exam",
    ),
    (
        "simple",
        "In how many exams did the student not come to the oral part?",
        "did not come to the oral part refers to oral IS NULL",
        "SELECT COUNT(*) FROM exam WHERE oral IS NULL",
    ),
    (
        "simple",
        "How many different students have enrolled in a course?",
        "",
        "SELECT COUNT(DISTINCT student_id) FROM enrolment",
    ),
    (
        "simple",
        "What are the names of the teachers who have no mentor?",
        "",
        "SELECT name FROM teacher WHERE mentor_id IS NULL",
    ),
    (
        "moderate",
        "How many courses started in 2022?",
        "started in 2022 refers to SUBSTR(start_date, 7, 4) = '2022'",
        "SELECT COUNT(*) FROM course WHERE SUBSTR(start_date, 7, 4) = '2022'",
    ),
    (
        "moderate",
        "List the names of the different teachers who teach a course of level B2 or C1.",
        "",
        "SELECT DISTINCT T1.name FROM teacher AS T1 INNER JOIN course AS T2 ON T1.teacher_id = T2.teacher_id "
        "WHERE T2.level IN ('B2', 'C1')",
    ),
    (
        "moderate",
        "Which teachers have no course? Give their names.",
        "",
        "SELECT name FROM teacher WHERE teacher_id NOT IN (SELECT teacher_id FROM course)",
    ),
    (
        "moderate",
        "For each language, give the language and the number of enrolments in its courses.",
        "",
        "SELECT T1.language, COUNT(*) FROM course AS T1 INNER JOIN enrolment AS T2 ON T1.course_id = T2.course_id "
        "GROUP BY T1.language",
    ),
    (
        "moderate",
        "List the names of the students who have enrolled in more than 5 courses.",
        "",
        "SELECT T1.name FROM student AS T1 INNER JOIN enrolment AS T2 ON T1.student_id = T2.student_id "
        "GROUP BY T1.student_id HAVING COUNT(*) > 5",
    ),
    (
        "challenging",
        "What is the earliest start date of a Swedish course?",
        "start_date is written DD/MM/YYYY, so the year is SUBSTR(start_date, 7, 4), the month is "
        "SUBSTR(start_date, 4, 2) and the day is SUBSTR(start_date, 1, 2); give it as written",
        "SELECT start_date FROM course WHERE language = 'Swedish' ORDER BY SUBSTR(start_date, 7, 4), "
        "SUBSTR(start_date, 4, 2), SUBSTR(start_date, 1, 2) LIMIT 1",
    ),
    (
        "challenging",
        "What percentage of the exams in French courses were passed?",
        "passed refers to written >= 50 AND oral >= 50; an exam without an oral part is not passed; "
        "percentage = DIVIDE(COUNT(passed), COUNT(exam_id)) * 100",
        "SELECT CAST(SUM(CASE WHEN T1.written >= 50 AND T1.oral >= 50 THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) "
        "FROM exam AS T1 INNER JOIN course AS T2 ON T1.course_id = T2.course_id WHERE T2.language = 'French'",
    ),
    (
        "challenging",
        "Give the name of each mentored teacher who earns more per hour than the mentor, "
        "together with the name of the mentor.",
        "earns per hour refers to `Hourly Rate (EUR)`; the mentor is the teacher with teacher_id = mentor_id",
        "SELECT T1.name, T2.name FROM teacher AS T1 INNER JOIN teacher AS T2 ON T1.mentor_id = T2.teacher_id "
        "WHERE T1.`Hourly Rate (EUR)` > T2.`Hourly Rate (EUR)`",
    ),
]
