"""A village clinic: doctors, patients, appointments and prescriptions."""

from random import Random

from demo_domains import day_after

SEED = 202

SCHEMA = """
CREATE TABLE department (
    code TEXT PRIMARY KEY, name TEXT, floor INTEGER
);
CREATE TABLE doctor (
    doctor_id INTEGER PRIMARY KEY, last_name TEXT, department_code TEXT, supervisor_id INTEGER, hired_on DATE,
    FOREIGN KEY (department_code) REFERENCES department (code),
    FOREIGN KEY (supervisor_id) REFERENCES doctor (doctor_id)
);
CREATE TABLE patient (
    patient_id INTEGER PRIMARY KEY, name TEXT, birth_date DATE, town TEXT, insurance TEXT, allergy TEXT
);
CREATE TABLE appointment (
    appointment_id INTEGER PRIMARY KEY, patient_id INTEGER, doctor_id INTEGER, visit_date DATE, minutes INTEGER,
    status TEXT, fee_chf REAL,
    FOREIGN KEY (patient_id) REFERENCES patient (patient_id),
    FOREIGN KEY (doctor_id) REFERENCES doctor (doctor_id)
);
CREATE TABLE medicine (
    medicine_id INTEGER PRIMARY KEY, name TEXT, form TEXT, price_chf REAL
);
CREATE TABLE prescription (
    appointment_id INTEGER, medicine_id INTEGER, daily_dose INTEGER, days INTEGER,
    PRIMARY KEY (appointment_id, medicine_id),
    FOREIGN KEY (appointment_id) REFERENCES appointment (appointment_id),
    FOREIGN KEY (medicine_id) REFERENCES medicine (medicine_id)
);
"""

DEPARTMENTS = [
    ("GP", "General Practice", 0), ("PED", "Pediatrics", 1), ("DER", "Dermatology", 1), ("CAR", "Cardiology", 2),
    ("ORT", "Orthopedics", 2),
]  # fmt: skip
DOCTORS = [
    ("Aebischer", "GP", None, "2004-05-01"), ("Baumann", "GP", 1, "2011-09-15"), ("Caduff", "GP", 1, "2019-02-01"),
    ("Dünner", "PED", None, "2008-01-07"), ("Egloff", "PED", 4, "2017-06-12"), ("Favre", "DER", None, "2012-03-19"),
    ("Gägauf", "CAR", None, "2001-11-05"), ("Hürlimann", "CAR", 7, "2015-08-24"), ("Imboden", "CAR", 7, "2020-10-01"),
    ("Jörg", "ORT", None, "2009-04-20"), ("Küng", "ORT", 10, "2018-12-03"), ("Lüthi", "GP", 2, "2021-07-26"),
]  # fmt: skip
MEDICINES = [
    ("Calmivox", "tablet", 12.4), ("Dermasol", "cream", 18.9), ("Fevrex", "syrup", 9.75), ("Cardiozan", "tablet", 41.2),
    ("Articur", "gel", 22.6), ("Nasolin", "spray", 7.8), ("Pulmocare", "spray", 33.5), ("Tussapect", "syrup", 11.3),
    ("Vitanorm", "tablet", 15.1), ("Rheumaton", "tablet", 27.95), ("Kindosan", "syrup", 8.4),
    ("Ulcostop", "tablet", 29.9),
]  # fmt: skip
FIRST = ["Reto", "Ursina", "Beat", "Sibylle", "Gian", "Flurina", "Luca", "Mirjam", "Noé", "Elin", "Andri", "Chiara"]
LAST = ["Ammann", "Brüllmann", "Casutt", "Derungs", "Eichenberger", "Fässler", "Gut"]
TOWNS = ["Zürich", "Uster", "Wetzikon", "Rüti", "Wald"]
ALLERGIES = ["pollen", "penicillin", "nuts", "latex"]


def _patients(rng: Random) -> list[tuple]:
    """About two patients in three have no known allergy; that is a NULL, not an empty text."""
    patients = []
    for number in range(1, 85):
        name = f"{FIRST[(number - 1) % 12]} {LAST[(number - 1) // 12]}"
        born = day_after("1938-01-01", rng.randrange(30500))
        allergy = rng.choice(ALLERGIES) if rng.random() < 0.35 else None
        patients.append((number, name, born, rng.choice(TOWNS), rng.choice("BBBHPN"), allergy))
    return patients


def rows(rng: Random) -> dict[str, list[tuple]]:
    """Return the rows of each table; only attended appointments cost a fee and lead to prescriptions."""
    appointments, prescriptions = [], []
    for number in range(1, 601):
        doctor = int(12 * rng.random() ** 1.3) + 1
        status = rng.choice("AAAAAACCN")
        minutes = rng.choice([10, 15, 15, 20, 30, 45])
        fee = round(minutes * rng.uniform(2.8, 4.6), 2) if status == "A" else None
        visit = day_after("2021-01-04", number * 2 + rng.randrange(5))
        appointments.append((number, int(80 * rng.random() ** 1.2) + 1, doctor, visit, minutes, status, fee))
        for medicine in rng.sample(range(1, 12), rng.choice([0, 0, 1, 1, 2])) if status == "A" else ():
            prescriptions.append((number, medicine, rng.randrange(1, 5), rng.choice([5, 7, 10, 14, 30])))
    return {
        "department": DEPARTMENTS,
        "doctor": [(number, *doctor) for number, doctor in enumerate(DOCTORS, 1)],
        "patient": _patients(rng),
        "appointment": appointments,
        "medicine": [(number, *medicine) for number, medicine in enumerate(MEDICINES, 1)],
        "prescription": prescriptions,
    }


CSV_ENCODINGS = {"patient": "utf-8-sig", "appointment": "cp1252"}

DESCRIPTIONS = {
    "department": {
        "code": ("department code", "short code of the department", "text", ""),
        "name": ("department name", "name of the department", "text", ""),
        "floor": ("floor", "floor of the building", "integer", "0 is the ground floor"),
    },
    "doctor": {
        "doctor_id": ("doctor id", "unique id of the doctor", "integer", ""),
        "last_name": ("last name", "last name of the doctor", "text", ""),
        "department_code": ("department code", "department the doctor works in", "text", ""),
        "supervisor_id": ("supervisor id", "doctor who supervises this doctor", "integer", "NULL: no supervisor"),
        "hired_on": ("hired on", "first working day at the clinic", "date", "YYYY-MM-DD"),
    },
    "patient": {
        "patient_id": ("patient id", "unique id of the patient", "integer", ""),
        "name": ("name", "first and last name", "text", ""),
        "birth_date": ("birth date", "date of birth", "date", "YYYY-MM-DD"),
        "town": ("town", "town where the patient lives, such as Zürich", "text", ""),
        "insurance": ("insurance", "kind of insurance", "text", "B: basic, H: half-private, P: private, N: none"),
        "allergy": ("allergy", "known allergy", "text", "NULL: no known allergy"),
    },
    "appointment": {
        "appointment_id": ("appointment id", "unique id of the appointment", "integer", ""),
        "patient_id": ("patient id", "the patient", "integer", ""),
        "doctor_id": ("doctor id", "the doctor", "integer", ""),
        "visit_date": ("visit date", "day of the appointment", "date", "YYYY-MM-DD"),
        "minutes": ("minutes", "planned length – in minutes", "integer", ""),
        "status": ("status", "what became of it", "text", "A: attended\nC: cancelled\nN: no-show, “not seen”"),
        "fee_chf": ("fee", "fee in Swiss francs, without the patient’s medicines", "real", "NULL unless attended"),
    },
    "medicine": {
        "medicine_id": ("medicine id", "unique id of the medicine", "integer", ""),
        "name": ("medicine name", "brand name", "text", ""),
        "form": ("form", "form of the medicine", "text", "tablet, cream, syrup, gel, spray"),
        "price_chf": ("price", "price of one pack in Swiss francs", "real", ""),
    },
    "prescription": {
        "appointment_id": ("appointment id", "appointment at which it was prescribed", "integer", ""),
        "medicine_id": ("medicine id", "the medicine", "integer", ""),
        "daily_dose": ("daily dose", "doses per day", "integer", ""),
        "days": ("days", "number of days to take it", "integer", ""),
    },
}

QUESTIONS = [
    ("simple", "How many patients live in Uster?", "", "SELECT COUNT(*) FROM patient WHERE town = 'Uster'"),
    (
        "simple",
        "List the name and the price of each medicine in the form of a syrup.",
        "",
        "SELECT name, price_chf FROM medicine WHERE form = 'syrup'",
    ),
    (
        "simple",
        "What are the last names of the doctors who have no supervisor?",
        "no supervisor refers to supervisor_id IS NULL",
        "SELECT last_name FROM doctor WHERE supervisor_id IS NULL",
    ),
    (
        "simple",
        "What is the name of the most expensive medicine?",
        "",
        "SELECT name FROM medicine ORDER BY price_chf DESC LIMIT 1",
    ),
    (
        "simple",
        "How many patients have a known allergy?",
        "known allergy refers to allergy IS NOT NULL",
        "SELECT COUNT(*) FROM patient WHERE allergy IS NOT NULL",
    ),
    (
        "simple",
        "How many appointments were cancelled?",
        "cancelled refers to status = 'C'",
        "SELECT COUNT(*) FROM appointment WHERE status = 'C'",
    ),
    (
        "simple",
        "What are the names of the patients with private insurance?",
        "private insurance refers to insurance = 'P'",
        "SELECT name FROM patient WHERE insurance = 'P'",
    ),
    (
        "simple",
        "List the last name and the hiring date of the doctors hired after 2016.",
        "hired after 2016 refers to hired_on >= '2017-01-01'",
        "SELECT last_name, hired_on FROM doctor WHERE hired_on >= '2017-01-01'",
    ),
    (
        "moderate",
        "List the last names of the doctors who work on floor 2.",
        "",
        "SELECT T1.last_name FROM doctor AS T1 INNER JOIN department AS T2 ON T1.department_code = T2.code "
        "WHERE T2.floor = 2",
    ),
    (
        "moderate",
        "For each department, give the name of the department and its number of doctors.",
        "",
        "SELECT T1.name, COUNT(T2.doctor_id) FROM department AS T1 INNER JOIN doctor AS T2 "
        "ON T1.code = T2.department_code GROUP BY T1.code",
    ),
    (
        "moderate",
        "Give the last name of each supervised doctor together with the last name of the supervisor.",
        "",
        "SELECT T1.last_name, T2.last_name FROM doctor AS T1 INNER JOIN doctor AS T2 "
        "ON T1.supervisor_id = T2.doctor_id",
    ),
    (
        "moderate",
        "How many different patients living in Zürich attended an appointment in 2022?",
        "attended refers to status = 'A'; in 2022 refers to visit_date LIKE '2022%'",
        "SELECT COUNT(DISTINCT T1.patient_id) FROM patient AS T1 INNER JOIN appointment AS T2 "
        "ON T1.patient_id = T2.patient_id WHERE T1.town = 'Zürich' AND T2.status = 'A' AND T2.visit_date LIKE '2022%'",
    ),
    (
        "moderate",
        "Which medicine has never been prescribed? Give its name.",
        "",
        "SELECT name FROM medicine WHERE medicine_id NOT IN (SELECT medicine_id FROM prescription)",
    ),
    (
        "moderate",
        "What are the names of the three medicines that were prescribed most often, starting with the most frequent?",
        "each row of prescription is one time",
        "SELECT T1.name FROM medicine AS T1 INNER JOIN prescription AS T2 ON T1.medicine_id = T2.medicine_id "
        "GROUP BY T1.medicine_id ORDER BY COUNT(*) DESC LIMIT 3",
    ),
    (
        "challenging",
        "What percentage of the appointments in the Cardiology department were no-shows?",
        "no-show refers to status = 'N'; percentage = DIVIDE(COUNT(status = 'N'), COUNT(appointment_id)) * 100",
        "SELECT CAST(SUM(CASE WHEN T1.status = 'N' THEN 1 ELSE 0 END) AS REAL) * 100 / COUNT(*) "
        "FROM appointment AS T1 INNER JOIN doctor AS T2 ON T1.doctor_id = T2.doctor_id "
        "INNER JOIN department AS T3 ON T2.department_code = T3.code WHERE T3.name = 'Cardiology'",
    ),
    (
        "challenging",
        "What are the names of the patients who were prescribed both Cardiozan and Articur, "
        "at the same or at different appointments?",
        "Cardiozan and Articur are names of medicines",
        "SELECT name FROM patient WHERE patient_id IN (SELECT T1.patient_id FROM appointment AS T1 "
        "INNER JOIN prescription AS T2 ON T1.appointment_id = T2.appointment_id INNER JOIN medicine AS T3 "
        "ON T2.medicine_id = T3.medicine_id WHERE T3.name = 'Cardiozan' INTERSECT SELECT T1.patient_id "
        "FROM appointment AS T1 INNER JOIN prescription AS T2 ON T1.appointment_id = T2.appointment_id "
        "INNER JOIN medicine AS T3 ON T2.medicine_id = T3.medicine_id WHERE T3.name = 'Articur')",
    ),
]
