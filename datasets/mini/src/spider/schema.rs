//! The schemas of the databases, in the form that the model reads.
//!
//! A schema is a compact text, `singers(id, name, age) concerts(id, singers_id, year)`. A column's
//! name determines its content in every database. Words have one form: tables are plurals, a
//! foreign key is the table's name with `_id`, and apart from `id` no column name occurs twice in a
//! database, so that queries need prefixes only in joins.
//!
//! The held-out databases have no new words; they combine known tables and columns in a new way.

/// Content of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// 1, 2, … in the order of the rows; the primary key.
    Id,
    /// The id of a row of this table (by number).
    Key(usize),
    /// A unique name.
    Name,
    /// One of a few names shared by rows.
    Category,
    /// Distinct integers in low..=high.
    Integer(i64, i64),
    /// Distinct non-integer tenths in low..=high.
    Tenths(i64, i64),
}

impl Content {
    /// The type in SQLite.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Id | Self::Key(_) | Self::Integer(..) => "integer",
            Self::Tenths(..) => "real",
            Self::Name | Self::Category => "text",
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer(..) | Self::Tenths(..))
    }
}

/// A column by name and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub content: Content,
}

/// A table and its columns; the first is `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
}

/// The schema of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub db_id: &'static str,
    pub tables: Vec<Table>,
    /// Whether the database is reserved for test.
    pub held_out: bool,
}

const TRAINING: &[(&str, &str)] = &[
    (
        "concert_hall",
        "singers(id, name, age, country) concerts(id, singers_id, title, year, seats)",
    ),
    ("shop_chain", "shops(id, name, city, size) products(id, shops_id, title, price, stock)"),
    ("ball_league", "teams(id, title, city, points) players(id, teams_id, name, age, height)"),
    (
        "village_school",
        "teachers(id, name, age, city) courses(id, teachers_id, title, hours) books(id, courses_id, pages, price)",
    ),
    ("farm_land", "farms(id, title, country, size) animals(id, farms_id, name, type, weight)"),
    ("air_line", "airlines(id, title, country) planes(id, airlines_id, name, type, seats, year)"),
    ("art_museum", "artists(id, name, country, age) pictures(id, artists_id, title, year, price)"),
    (
        "town_library",
        "writers(id, name, country) books(id, writers_id, title, pages, year) loans(id, books_id, city, days)",
    ),
    ("sea_hotel", "hotels(id, title, city, score) guests(id, hotels_id, name, age, country, days)"),
    (
        "rock_bands",
        "bands(id, title, country, year) albums(id, bands_id, name, price) songs(id, albums_id, type, length)",
    ),
    ("old_port", "ships(id, title, country, length) trips(id, ships_id, city, year, days)"),
    ("city_clinic", "doctors(id, name, city, age) guests(id, doctors_id, title, weight, height)"),
    ("film_club", "films(id, title, type, year, score) actors(id, films_id, name, country, age)"),
];

const HELD_OUT: &[(&str, &str)] = &[
    (
        "picture_shop",
        "shops(id, title, city, score) pictures(id, shops_id, name, type, price, height)",
    ),
    ("song_writers", "writers(id, name, city, age) songs(id, writers_id, title, length, year)"),
    ("travel_club", "hotels(id, name, country, size) trips(id, hotels_id, title, days, price)"),
    (
        "team_school",
        "teachers(id, name, country, points) teams(id, teachers_id, title, size) players(id, teams_id, city, age, weight)",
    ),
];

/// All schemas, held-out ones last.
pub(super) fn all() -> Vec<Schema> {
    let training = TRAINING.iter().map(|row| (row, false));
    let held_out = HELD_OUT.iter().map(|row| (row, true));
    training.chain(held_out).map(|(&(id, text), held_out)| parse(id, text, held_out)).collect()
}

/// # Panics
/// If the tables above contain an invalid schema.
fn parse(db_id: &'static str, text: &str, held_out: bool) -> Schema {
    let mut tables: Vec<Table> = Vec::new();
    for part in text.split_terminator(')') {
        let Some((name, columns)) = part.trim().split_once('(') else {
            panic!("{db_id} has an invalid table: {part}")
        };
        let column = |column: &str| Column {
            name: column.to_string(),
            content: content(column, &tables)
                .unwrap_or_else(|| panic!("{db_id} has an unknown column: {column}")),
        };
        let columns = columns.split(", ").map(column).collect();
        tables.push(Table { name: name.to_string(), columns });
    }
    Schema { db_id, tables, held_out }
}

/// The content of a column by its name, given the preceding tables.
fn content(column: &str, tables: &[Table]) -> Option<Content> {
    Some(match column {
        "id" => Content::Id,
        "name" | "title" => Content::Name,
        "city" | "country" | "type" => Content::Category,
        "age" => Content::Integer(18, 79),
        "year" => Content::Integer(1900, 2029),
        "days" | "hours" => Content::Integer(11, 99),
        "height" => Content::Integer(101, 210),
        "weight" | "pages" | "seats" | "size" | "stock" => Content::Integer(101, 999),
        "points" => Content::Integer(11, 99),
        "price" | "length" | "score" => Content::Tenths(11, 999),
        _ => {
            let parent = column.strip_suffix("_id")?;
            Content::Key(tables.iter().position(|table| table.name == parent)?)
        }
    })
}

impl Schema {
    /// The schema in the form of the prompt:
    /// `singers(id, name, age) concerts(id, singers_id, year)`.
    pub fn compact(&self) -> String {
        let table = |table: &Table| {
            let columns: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            format!("{}({})", table.name, columns.join(", "))
        };
        self.tables.iter().map(table).collect::<Vec<_>>().join(" ")
    }

    /// The statements that create the tables.
    pub fn create_statements(&self) -> Vec<String> {
        let table = |table: &Table| {
            let mut parts = Vec::new();
            let mut keys = Vec::new();
            for Column { name, content } in &table.columns {
                let primary = if *content == Content::Id { " primary key" } else { "" };
                parts.push(format!("{name} {}{primary}", content.sql_type()));
                if let Content::Key(parent) = content {
                    let parent = &self.tables[*parent].name;
                    keys.push(format!("foreign key ({name}) references {parent}(id)"));
                }
            }
            parts.extend(keys);
            format!("create table {} ({})", table.name, parts.join(", "))
        };
        self.tables.iter().map(table).collect()
    }

    /// Pairs of a table and the table that its foreign key refers to, by number.
    pub(super) fn references(&self) -> Vec<(usize, usize)> {
        let keys = |(child, table): (usize, &Table)| {
            let parent = |column: &Column| match column.content {
                Content::Key(parent) => Some((child, parent)),
                _ => None,
            };
            table.columns.iter().filter_map(parent).collect::<Vec<_>>()
        };
        self.tables.iter().enumerate().flat_map(keys).collect()
    }
}
