//! Values of PostgreSQL's binary format, as the text that PostgreSQL prints.

use std::error::Error;

use chrono::{DateTime, NaiveDate, TimeDelta};
use tokio_postgres::types::{FromSql, Type};

/// The text of a value.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Text, Box<dyn Error + Sync + Send>> {
        Ok(Text(match *ty {
            Type::BOOL => if raw == [1] { "t" } else { "f" }.to_owned(),
            Type::INT2 => i16::from_sql(ty, raw)?.to_string(),
            Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
            Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
            Type::FLOAT4 => float(f32::from_sql(ty, raw)?.to_string()),
            Type::FLOAT8 => float(f64::from_sql(ty, raw)?.to_string()),
            Type::NUMERIC => numeric(raw)?,
            Type::DATE => {
                let days = TimeDelta::days(i32::from_be_bytes(raw.try_into()?).into());
                (epoch().ok_or("no epoch")? + days).format("%Y-%m-%d").to_string()
            }
            Type::TIMESTAMP => time(raw)?,
            Type::TIMESTAMPTZ => time(raw)? + "+00",
            Type::TEXT | Type::VARCHAR | Type::NAME => std::str::from_utf8(raw)?.to_owned(),
            ref other => return Err(format!("values of the type {other} are not read").into()),
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn epoch() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(2000, 1, 1)
}

fn float(text: String) -> String {
    match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text,
    }
}

fn time(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let start = DateTime::from_timestamp(946_684_800, 0).ok_or("no epoch")?;
    let time = start + TimeDelta::microseconds(i64::from_be_bytes(raw.try_into()?));
    let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Digits in base 10,000, behind their number, the weight of the first one, the sign, and the
/// number of decimal digits after the point.
fn numeric(raw: &[u8]) -> Result<String, Box<dyn Error + Sync + Send>> {
    let words = raw.chunks(2).map(|word| Ok(i16::from_be_bytes(word.try_into()?)));
    let words = words.collect::<Result<Vec<i16>, Box<dyn Error + Sync + Send>>>()?;
    let [_, weight, sign, scale, digits @ ..] = words.as_slice() else { return Err("a short numeric".into()) };
    let digit = |place: i16| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let mut text = if *sign == 0x4000 { "-".to_owned() } else { String::new() };
    match *weight {
        ..0 => text.push('0'),
        weight => {
            text.push_str(&digit(0).to_string());
            (1..=weight).for_each(|place| text.push_str(&format!("{:04}", digit(place))));
        }
    }
    if *scale > 0 {
        let after: String =
            (1..=scale.div_euclid(4) + 1).map(|place| format!("{:04}", digit(weight + place))).collect();
        text.push('.');
        text.push_str(&after[..usize::try_from(*scale)?]);
    }
    Ok(text)
}
