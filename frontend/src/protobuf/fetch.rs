//! Fetches schemas: over HTTP, from a bucket, or from the frontend's disk. Each fetch is bounded in
//! time and size, and follows no redirection away from the location in the statement.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStoreExt, RetryConfig};
use reqwest::{Url, redirect};
use tokio::io::AsyncReadExt;
use weir_common::error::{Kind, chain};
use weir_sql::error::{Error, sqlstate};

use super::options::S3;

/// The maximum time of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a schema.
const SCHEMA_BYTES_MAX: usize = 16 << 20;

/// The location of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Http(Url),
    S3 { bucket: String, key: object_store::path::Path },
    File(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Http(url) => write!(f, "{url}"),
            Location::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Location::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl Location {
    pub(super) fn parse(text: &str) -> Result<Location, Error> {
        let invalid = |hint: &str| {
            let message = format!("option \"schema.location\": \"{text}\" is no place of a schema");
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint)
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => {
                let url = Url::parse(text).map_err(|_| invalid("it is not a valid URL"))?;
                if !url.username().is_empty() || url.password().is_some() {
                    let message = "option \"schema.location\": a user or a password in a URL is not supported";
                    return Err(Error::unsupported(message));
                }
                Ok(Location::Http(url))
            }
            "s3" => {
                let place = rest.split_once('/').filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty());
                let (bucket, key) = place.ok_or_else(|| invalid("write s3://bucket/path/of/the/schema"))?;
                let key = object_store::path::Path::parse(key).map_err(|_| invalid("it is not a valid path"))?;
                Ok(Location::S3 { bucket: bucket.to_owned(), key })
            }
            "file" | "" if rest.starts_with('/') => Ok(Location::File(PathBuf::from(rest))),
            _ => Err(invalid("write http://…, https://…, s3://bucket/path, or file:///path of a file of the frontend")),
        }
    }

    /// Returns the folder that the schema's imports may come from, which only files have.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Location::File(path) => path.parent(),
            Location::Http(_) | Location::S3 { .. } => None,
        }
    }

    /// Returns the last part of the path, as a name for the schema.
    pub(super) fn file_name(&self) -> String {
        let name = match self {
            Location::Http(url) => url.path_segments().and_then(|mut parts| parts.next_back()).map(str::to_owned),
            Location::S3 { key, .. } => key.filename().map(str::to_owned),
            Location::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        };
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| "schema".to_owned())
    }
}

/// Returns all bytes of a schema.
pub(super) async fn fetch(location: &Location, s3: &S3) -> Result<Bytes, Error> {
    match location {
        Location::Http(url) => in_time(location, http(location, url)).await,
        Location::S3 { bucket, key } => in_time(location, object(location, bucket, key, s3)).await,
        Location::File(path) => in_time(location, file(location, path)).await,
    }
}

async fn in_time(location: &Location, fetch: impl Future<Output = Result<Bytes, Error>>) -> Result<Bytes, Error> {
    match tokio::time::timeout(FETCH_TIMEOUT, fetch).await {
        Ok(fetched) => fetched,
        Err(_) => Err(failed(location, &format!("there was no answer in {} seconds", FETCH_TIMEOUT.as_secs()))),
    }
}

fn failed(location: &Location, reason: &str) -> Error {
    Error::new(Kind::User, sqlstate::IO_ERROR, format!("the schema at {location} cannot be read: {reason}")).with_hint(
        "the frontend fetches it while the table is created, and never again: it has to be reachable from there",
    )
}

fn too_large(location: &Location) -> Error {
    failed(location, &format!("it is larger than {SCHEMA_BYTES_MAX} bytes"))
}

async fn http(location: &Location, url: &Url) -> Result<Bytes, Error> {
    let failed = |error: reqwest::Error| failed(location, &chain(&error.without_url()));
    let client =
        reqwest::Client::builder().redirect(redirect::Policy::none()).user_agent("weir").build().map_err(failed)?;
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    let status = response.status();
    if status.is_redirection() {
        let target = response.headers().get("location").and_then(|target| target.to_str().ok()).unwrap_or("elsewhere");
        return Err(self::failed(location, &format!("it answers {status}, to {target}"))
            .with_hint("redirections are not followed: give the address that the schema is at"));
    }
    if !status.is_success() {
        return Err(self::failed(location, &format!("it answers {status}")));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > SCHEMA_BYTES_MAX {
            return Err(too_large(location));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

async fn object(
    location: &Location,
    bucket: &str,
    key: &object_store::path::Path,
    options: &S3,
) -> Result<Bytes, Error> {
    let failed = |error: object_store::Error| failed(location, &chain(&error));
    // The statement chooses the endpoint, and one inside of a trusted network often has no
    // certificate.
    let mut s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true);
    if let Some(region) = &options.region {
        s3 = s3.with_region(region);
    }
    if let Some(endpoint) = &options.endpoint {
        s3 = s3.with_endpoint(endpoint);
    }
    if let Some(key) = &options.access_key {
        s3 = s3.with_access_key_id(key);
    }
    if let Some(key) = &options.secret_key {
        s3 = s3.with_secret_access_key(key);
    }
    if let Some(token) = &options.session_token {
        s3 = s3.with_token(token);
    }
    let retry = RetryConfig { max_retries: 3, retry_timeout: FETCH_TIMEOUT, ..RetryConfig::default() };
    let s3 = s3.with_retry(retry).build().map_err(failed)?;
    let object = s3.get(key).await.map_err(failed)?;
    if object.meta.size > SCHEMA_BYTES_MAX as u64 {
        return Err(too_large(location));
    }
    object.bytes().await.map_err(failed)
}

async fn file(location: &Location, path: &Path) -> Result<Bytes, Error> {
    let failed = |error: std::io::Error| failed(location, &error.to_string());
    let kind = tokio::fs::metadata(path).await.map_err(failed)?;
    if !kind.is_file() {
        return Err(self::failed(location, "it is not a file"));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(SCHEMA_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(too_large(location));
    }
    Ok(bytes.into())
}
