//! Public holidays, computed from their rules.
//!
//! Nation-wide holidays with a day off: fixed dates, dates by weekday, and dates from Easter (the Gregorian
//! computus of Meeus, "Astronomical Algorithms", chapter 8). Rules instead of tables, since rules do not run out; and
//! our own, since no crate that we found is both kept up and fit for the job: `holidays` 0.1 names no licence, was released once and
//! carries tables of past years; `py-holidays-rs` 0.1, in beta, fetches its tables over the network at run time or embeds them, and
//! brings a date library; `public_holidays` 0.1 has five countries and no release since 2024. What follows the moon or a
//! government's yearly word is not here; events
//! of the configuration say it. Holidays of single states or provinces are not here either.

use std::fmt;
use std::str::FromStr;

/// A country whose holidays are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Country {
    /// Australia.
    Au,
    /// Brazil.
    Br,
    /// Canada.
    Ca,
    /// Switzerland.
    Ch,
    /// Germany.
    De,
    /// Spain.
    Es,
    /// France.
    Fr,
    /// The United Kingdom: England and Wales.
    Gb,
    /// Ireland.
    Ie,
    /// Italy.
    It,
    /// Japan, without the equinoxes.
    Jp,
    /// The Netherlands.
    Nl,
    /// Poland.
    Pl,
    /// Sweden.
    Se,
    /// The United States: federal holidays.
    Us,
}

/// Every country that is known, with its ISO 3166 code.
const CODES: [(&str, Country); 15] = [
    ("AU", Country::Au),
    ("BR", Country::Br),
    ("CA", Country::Ca),
    ("CH", Country::Ch),
    ("DE", Country::De),
    ("ES", Country::Es),
    ("FR", Country::Fr),
    ("GB", Country::Gb),
    ("IE", Country::Ie),
    ("IT", Country::It),
    ("JP", Country::Jp),
    ("NL", Country::Nl),
    ("PL", Country::Pl),
    ("SE", Country::Se),
    ("US", Country::Us),
];

/// Why a text is no country.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("country {0:?} is not known: known are AU BR CA CH DE ES FR GB IE IT JP NL PL SE US; give others' holidays as [[event]]")]
pub struct UnknownCountry(String);

impl FromStr for Country {
    type Err = UnknownCountry;
    fn from_str(text: &str) -> Result<Self, UnknownCountry> {
        let found = CODES.iter().find(|(code, _)| code.eq_ignore_ascii_case(text));
        found.map(|(_, country)| *country).ok_or_else(|| UnknownCountry(text.chars().take(20).collect()))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = CODES.iter().find(|(_, country)| country == self).map_or("", |(code, _)| code);
        f.pad(code)
    }
}

/// How a holiday is found in a year.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Month and day.
    On(u32, u32),
    /// The same; on a Saturday it is kept on the Friday before, on a Sunday on the Monday after.
    Nearest(u32, u32),
    /// The same; on a weekend it is kept on the next working day.
    Next(u32, u32),
    /// The n-th of a weekday (0 is Monday) in a month.
    Nth(u32, u32, u32),
    /// The last of a weekday in a month.
    Last(u32, u32),
    /// The weekday on or before a day.
    Before(u32, u32, u32),
    /// The weekday on or after a day.
    After(u32, u32, u32),
    /// So many days after Easter Sunday.
    Easter(i64),
}

use Rule::{After, Before, Easter, Last, Nearest, Next, Nth, On};

const MONDAY: u32 = 0;
const THURSDAY: u32 = 3;
const FRIDAY: u32 = 4;
const SATURDAY: u32 = 5;
const SUNDAY: u32 = 6;

/// A holiday's day and name. Days count from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holiday {
    /// Which day.
    pub(super) day: i64,
    /// Its name.
    pub(super) name: &'static str,
}

/// The holidays of `country` in `year`, ascending.
pub(super) fn holidays(country: Country, year: i64) -> Vec<Holiday> {
    let mut days: Vec<Holiday> = rules(country).iter().map(|(rule, name)| Holiday { day: rule.day(year), name }).collect();
    days.sort();
    // Two that are moved from one weekend must not fall together: the later one moves on.
    let moved = |name: &str| rules(country).iter().any(|(rule, other)| *other == name && matches!(rule, Next(..)));
    for at in 1..days.len() {
        while days[at].day <= days[at - 1].day && moved(days[at].name) {
            days[at].day += 1;
        }
    }
    days
}

const NEW_YEAR: &str = "New Year";
const EASTER_MONDAY: &str = "Easter Monday";
const GOOD_FRIDAY: &str = "Good Friday";
const ASCENSION: &str = "Ascension";
const WHIT_MONDAY: &str = "Whit Monday";
const LABOUR: &str = "Labour Day";
const ASSUMPTION: &str = "Assumption";
const ALL_SAINTS: &str = "All Saints";
const CHRISTMAS: &str = "Christmas";
const SECOND_CHRISTMAS: &str = "Second Day of Christmas";
const EPIPHANY: &str = "Epiphany";
const CORPUS_CHRISTI: &str = "Corpus Christi";
const IMMACULATE: &str = "Immaculate Conception";

fn rules(country: Country) -> &'static [(Rule, &'static str)] {
    match country {
        Country::Au => &[
            (Next(1, 1), NEW_YEAR),
            (Next(1, 26), "Australia Day"),
            (Easter(-2), GOOD_FRIDAY),
            (Easter(1), EASTER_MONDAY),
            (On(4, 25), "Anzac Day"),
            (Next(12, 25), CHRISTMAS),
            (Next(12, 26), "Boxing Day"),
        ],
        Country::Br => &[
            (On(1, 1), NEW_YEAR),
            (Easter(-2), GOOD_FRIDAY),
            (On(4, 21), "Tiradentes"),
            (On(5, 1), LABOUR),
            (On(9, 7), "Independence Day"),
            (On(10, 12), "Our Lady of Aparecida"),
            (On(11, 2), "All Souls"),
            (On(11, 15), "Republic Day"),
            (On(11, 20), "Black Awareness Day"),
            (On(12, 25), CHRISTMAS),
        ],
        Country::Ca => &[
            (Next(1, 1), NEW_YEAR),
            (Easter(-2), GOOD_FRIDAY),
            (Before(5, 24, MONDAY), "Victoria Day"),
            (Next(7, 1), "Canada Day"),
            (Nth(9, MONDAY, 1), LABOUR),
            (Next(9, 30), "Truth and Reconciliation"),
            (Nth(10, MONDAY, 2), "Thanksgiving"),
            (Next(11, 11), "Remembrance Day"),
            (Next(12, 25), CHRISTMAS),
            (Next(12, 26), "Boxing Day"),
        ],
        Country::Ch => &[(On(1, 1), NEW_YEAR), (Easter(39), ASCENSION), (On(8, 1), "National Day"), (On(12, 25), CHRISTMAS)],
        Country::De => &[
            (On(1, 1), NEW_YEAR),
            (Easter(-2), GOOD_FRIDAY),
            (Easter(1), EASTER_MONDAY),
            (On(5, 1), LABOUR),
            (Easter(39), ASCENSION),
            (Easter(50), WHIT_MONDAY),
            (On(10, 3), "German Unity"),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), SECOND_CHRISTMAS),
        ],
        Country::Es => &[
            (On(1, 1), NEW_YEAR),
            (On(1, 6), EPIPHANY),
            (Easter(-2), GOOD_FRIDAY),
            (On(5, 1), LABOUR),
            (On(8, 15), ASSUMPTION),
            (On(10, 12), "National Day"),
            (On(11, 1), ALL_SAINTS),
            (On(12, 6), "Constitution Day"),
            (On(12, 8), IMMACULATE),
            (On(12, 25), CHRISTMAS),
        ],
        Country::Fr => &[
            (On(1, 1), NEW_YEAR),
            (Easter(1), EASTER_MONDAY),
            (On(5, 1), LABOUR),
            (On(5, 8), "Victory Day"),
            (Easter(39), ASCENSION),
            (Easter(50), WHIT_MONDAY),
            (On(7, 14), "National Day"),
            (On(8, 15), ASSUMPTION),
            (On(11, 1), ALL_SAINTS),
            (On(11, 11), "Armistice Day"),
            (On(12, 25), CHRISTMAS),
        ],
        Country::Gb => &[
            (Next(1, 1), NEW_YEAR),
            (Easter(-2), GOOD_FRIDAY),
            (Easter(1), EASTER_MONDAY),
            (Nth(5, MONDAY, 1), "Early May Bank Holiday"),
            (Last(5, MONDAY), "Spring Bank Holiday"),
            (Last(8, MONDAY), "Summer Bank Holiday"),
            (Next(12, 25), CHRISTMAS),
            (Next(12, 26), "Boxing Day"),
        ],
        Country::Ie => &[
            (On(1, 1), NEW_YEAR),
            (Nth(2, MONDAY, 1), "Saint Brigid"),
            (On(3, 17), "Saint Patrick"),
            (Easter(1), EASTER_MONDAY),
            (Nth(5, MONDAY, 1), "May Day"),
            (Nth(6, MONDAY, 1), "June Holiday"),
            (Nth(8, MONDAY, 1), "August Holiday"),
            (Last(10, MONDAY), "October Holiday"),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), "Saint Stephen"),
        ],
        Country::It => &[
            (On(1, 1), NEW_YEAR),
            (On(1, 6), EPIPHANY),
            (Easter(1), EASTER_MONDAY),
            (On(4, 25), "Liberation Day"),
            (On(5, 1), LABOUR),
            (On(6, 2), "Republic Day"),
            (On(8, 15), ASSUMPTION),
            (On(11, 1), ALL_SAINTS),
            (On(12, 8), IMMACULATE),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), "Saint Stephen"),
        ],
        Country::Jp => &[
            (On(1, 1), NEW_YEAR),
            (Nth(1, MONDAY, 2), "Coming of Age Day"),
            (On(2, 11), "Foundation Day"),
            (On(2, 23), "Emperor's Birthday"),
            (On(4, 29), "Showa Day"),
            (On(5, 3), "Constitution Day"),
            (On(5, 4), "Greenery Day"),
            (On(5, 5), "Children's Day"),
            (Nth(7, MONDAY, 3), "Marine Day"),
            (On(8, 11), "Mountain Day"),
            (Nth(9, MONDAY, 3), "Respect for the Aged Day"),
            (Nth(10, MONDAY, 2), "Sports Day"),
            (On(11, 3), "Culture Day"),
            (On(11, 23), "Labour Thanksgiving Day"),
        ],
        Country::Nl => &[
            (On(1, 1), NEW_YEAR),
            (Easter(1), EASTER_MONDAY),
            (On(4, 27), "King's Day"),
            (Easter(39), ASCENSION),
            (Easter(50), WHIT_MONDAY),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), SECOND_CHRISTMAS),
        ],
        Country::Pl => &[
            (On(1, 1), NEW_YEAR),
            (On(1, 6), EPIPHANY),
            (Easter(1), EASTER_MONDAY),
            (On(5, 1), LABOUR),
            (On(5, 3), "Constitution Day"),
            (Easter(60), CORPUS_CHRISTI),
            (On(8, 15), ASSUMPTION),
            (On(11, 1), ALL_SAINTS),
            (On(11, 11), "Independence Day"),
            (On(12, 24), "Christmas Eve"),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), SECOND_CHRISTMAS),
        ],
        Country::Se => &[
            (On(1, 1), NEW_YEAR),
            (On(1, 6), EPIPHANY),
            (Easter(-2), GOOD_FRIDAY),
            (Easter(1), EASTER_MONDAY),
            (On(5, 1), LABOUR),
            (Easter(39), ASCENSION),
            (On(6, 6), "National Day"),
            (After(6, 19, FRIDAY), "Midsummer Eve"),
            (After(10, 31, SATURDAY), ALL_SAINTS),
            (On(12, 24), "Christmas Eve"),
            (On(12, 25), CHRISTMAS),
            (On(12, 26), SECOND_CHRISTMAS),
            (On(12, 31), "New Year's Eve"),
        ],
        Country::Us => &[
            (Nearest(1, 1), NEW_YEAR),
            (Nth(1, MONDAY, 3), "Martin Luther King Day"),
            (Nth(2, MONDAY, 3), "Washington's Birthday"),
            (Last(5, MONDAY), "Memorial Day"),
            (Nearest(6, 19), "Juneteenth"),
            (Nearest(7, 4), "Independence Day"),
            (Nth(9, MONDAY, 1), LABOUR),
            (Nth(10, MONDAY, 2), "Columbus Day"),
            (Nearest(11, 11), "Veterans Day"),
            (Nth(11, THURSDAY, 4), "Thanksgiving"),
            (Nearest(12, 25), CHRISTMAS),
        ],
    }
}

impl Rule {
    fn day(self, year: i64) -> i64 {
        let on_or_after = |day: i64, wanted: u32| day + i64::from((wanted + 7 - weekday(day)) % 7);
        match self {
            On(month, day) => days_from_civil(year, month, day),
            Nearest(month, day) => {
                let day = days_from_civil(year, month, day);
                match weekday(day) {
                    SATURDAY => day - 1,
                    SUNDAY => day + 1,
                    _ => day,
                }
            }
            Next(month, day) => {
                let day = days_from_civil(year, month, day);
                if weekday(day) >= SATURDAY { on_or_after(day, MONDAY) } else { day }
            }
            Nth(month, wanted, nth) => on_or_after(days_from_civil(year, month, 1), wanted) + 7 * i64::from(nth - 1),
            Last(month, wanted) => {
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                on_or_after(days_from_civil(year, month, 1) - 7, wanted)
            }
            Before(month, day, wanted) => on_or_after(days_from_civil(year, month, day) - 6, wanted),
            After(month, day, wanted) => on_or_after(days_from_civil(year, month, day), wanted),
            Easter(days) => easter(year) + days,
        }
    }
}

/// 0 is Monday; 1970 began on a Thursday.
fn weekday(day: i64) -> u32 {
    (day + 3).rem_euclid(7) as u32
}

/// Easter Sunday, by the anonymous Gregorian computus.
fn easter(year: i64) -> i64 {
    let (a, b, c) = (year.rem_euclid(19), year.div_euclid(100), year.rem_euclid(100));
    let (d, e) = (b / 4, b % 4);
    let g = (b - (b + 8) / 25 + 1) / 3;
    let h = (19 * a + b - d - g + 15) % 30;
    let l = (32 + 2 * e + 2 * (c / 4) - h - c % 4) % 7;
    let m = (a + 11 * h + 22 * l) / 451;
    let n = h + l - 7 * m + 114;
    days_from_civil(year, (n / 31) as u32, (n % 31) as u32 + 1)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The year that a day is in.
pub(super) fn year_of(day: i64) -> i64 {
    let guess = 1970 + day.div_euclid(366);
    (guess..=guess + 2 + day.abs() / 100_000).rev().find(|year| days_from_civil(*year, 1, 1) <= day).unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(country: Country, year: i64, name: &str, month: u32, day: u32) {
        let days = holidays(country, year);
        let found: Vec<_> = days.iter().filter(|holiday| holiday.name == name).collect();
        assert!(found.iter().any(|holiday| holiday.day == days_from_civil(year, month, day)), "{country} {year} {name}: {found:?}");
    }

    #[test]
    fn easter_moves_as_the_church_says() {
        for (year, month, day) in [(2000, 4, 23), (2008, 3, 23), (2024, 3, 31), (2025, 4, 20), (2026, 4, 5), (2038, 4, 25)] {
            assert_eq!(easter(year), days_from_civil(year, month, day), "{year}");
        }
    }

    #[test]
    fn known_years_are_right() {
        has(Country::Us, 2026, "Thanksgiving", 11, 26);
        has(Country::Us, 2026, "Independence Day", 7, 3);
        has(Country::Us, 2027, "Juneteenth", 6, 18);
        has(Country::Us, 2026, "Memorial Day", 5, 25);
        has(Country::Gb, 2026, "Summer Bank Holiday", 8, 31);
        has(Country::Gb, 2026, "Boxing Day", 12, 28);
        has(Country::Gb, 2022, "Boxing Day", 12, 26);
        has(Country::Gb, 2022, "Christmas", 12, 27);
        has(Country::De, 2026, "Whit Monday", 5, 25);
        has(Country::Ca, 2026, "Victoria Day", 5, 18);
        has(Country::Se, 2026, "Midsummer Eve", 6, 19);
        has(Country::Jp, 2026, "Marine Day", 7, 20);
        has(Country::Pl, 2026, "Corpus Christi", 6, 4);
    }

    #[test]
    fn every_country_has_holidays_in_its_year_and_no_two_on_a_day() {
        for (code, country) in CODES {
            assert_eq!(code.parse(), Ok(country));
            assert_eq!(country.to_string(), code);
            for year in 2020..2040 {
                let days = holidays(country, year);
                assert!(days.len() >= 4 && days.iter().all(|day| year_of(day.day) == year || day.name == NEW_YEAR), "{code} {year}");
                let twice = days.windows(2).filter(|pair| pair[0].day == pair[1].day).count();
                assert!(twice <= 1, "{code} {year}: {days:?}");
            }
        }
        assert!("XX".parse::<Country>().unwrap_err().to_string().contains("known are AU"));
    }

    #[test]
    fn days_have_years() {
        for (day, year) in [(0, 1970), (364, 1970), (365, 1971), (-1, 1969), (20_453, 2025), (20_454, 2026), (1_000_000, 4707)] {
            assert_eq!(year_of(day), year, "{day}");
        }
    }
}
