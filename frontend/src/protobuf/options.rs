//! The options in the parentheses behind ENCODE PROTOBUF.

use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Format, Parsed, WithOption};

use super::fetch::Location;

/// All options, as the hint for an unknown one lists them.
const KNOWN: &str = "message, schema.location, messages_as_jsonb, and for s3://… s3.region, s3.endpoint, s3.access.key, \
                     s3.secret.key and s3.session.token";

/// Our option names, each with RisingWave's names for the same option.
const ALIASES: [(&str, &[&str]); 5] = [
    ("s3.region", &["region", "aws.region", "s3.region_name"]),
    ("s3.endpoint", &["endpoint", "endpoint_url", "aws.endpoint_url", "s3.endpoint_url"]),
    ("s3.access.key", &["access_key", "aws.credentials.access_key_id", "s3.credentials.access"]),
    ("s3.secret.key", &["secret_key", "aws.credentials.secret_access_key", "s3.credentials.secret"]),
    ("s3.session.token", &["session_token", "aws.credentials.session_token"]),
];

/// The options, by our names, whose values must not be shown.
const CREDENTIALS: [&str; 3] = ["s3.access.key", "s3.secret.key", "s3.session.token"];

/// The location of a schema, and the parts of it that are wanted.
pub(super) struct Options {
    pub(super) message: String,
    pub(super) location: Location,
    pub(super) s3: S3,
    pub(super) as_jsonb: Vec<String>,
    /// The position of the message's name in the statement.
    pub(super) message_at: usize,
    /// The position of the location in the statement.
    pub(super) location_at: usize,
}

/// The access to a bucket. Missing values come from the environment of the process.
#[derive(Clone, Default)]
pub(super) struct S3 {
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<String>,
    pub(super) session_token: Option<String>,
}

/// Returns true if an option's value gives access to the schema's location.
pub(crate) fn is_credential(option: &str) -> bool {
    CREDENTIALS.contains(&own_name(option))
}

/// Returns our name for an option.
fn own_name(option: &str) -> &str {
    let alias = ALIASES.iter().find(|(_, others)| others.contains(&option));
    alias.map_or(option, |(own, _)| *own)
}

impl Options {
    pub(super) fn read(parsed: &Parsed, format: &Format) -> Result<Options, Error> {
        let (mut message, mut location, mut as_jsonb, mut s3) = (None, None, Vec::new(), S3::default());
        for option in &format.options {
            let value = || Some(option.value.trim().to_owned());
            match own_name(&option.key) {
                "message" => message = Some(option),
                "schema.location" => location = Some(option),
                "messages_as_jsonb" => {
                    let names = option.value.split(',').map(|name| name.trim().trim_start_matches('.'));
                    as_jsonb = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
                }
                "s3.region" => s3.region = value(),
                "s3.endpoint" => s3.endpoint = value(),
                "s3.access.key" => s3.access_key = value(),
                "s3.secret.key" => s3.secret_key = value(),
                "s3.session.token" => s3.session_token = value(),
                key => return Err(unknown(key).at(parsed.position(option.key_location))),
            }
        }
        let required = |option: Option<&'_ WithOption>, key: &str, hint: &str| match option {
            Some(option) => Ok((option.value.trim().to_owned(), parsed.position(option.value_span.start))),
            None => Err(Error::user(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("option \"{key}\" of ENCODE PROTOBUF is required"),
            )
            .with_hint(hint)
            .at(parsed.position(format.location))),
        };
        let (message, message_at) =
            required(message, "message", "give the full name of the message: message = 'package.Message'")?;
        let (location, location_at) = required(
            location,
            "schema.location",
            "give an http(s)://, s3:// or file:// address of a FileDescriptorSet or a .proto file",
        )?;
        let location = Location::parse(&location).map_err(|error| error.at(location_at))?;
        Ok(Options { message, location, s3, as_jsonb, message_at, location_at })
    }
}

fn unknown(key: &str) -> Error {
    if key.starts_with("schema.registry") {
        return Error::unsupported("a schema registry is not supported yet")
            .with_hint("give the schema itself: schema.location = 'http://…'");
    }
    let message = format!("option \"{key}\" of ENCODE PROTOBUF does not exist");
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(format!("the options are {KNOWN}"))
}
