//! An object store that speaks S3: moto, which the set-up script brings from PyPI into `.cache/python`.
//!
//! It keeps objects in memory, so it is never killed; it honours conditional writes, which is what Weir's state rests on.
//! It logs every request, which is how requests are counted here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::http;
use crate::process::{Process, Program, workspace};
use crate::sandbox::{Sandbox, free_address};
use crate::wait::{PATIENCE, eventually};
use crate::weir::State;

/// How long it may take to start.
const START_DEADLINE: Duration = PATIENCE;
/// The bucket that is there from the start.
const BUCKET: &str = "weir";

/// Under what state is in it.
const PREFIX: &str = "some/prefix";

/// A running object store with one bucket.
pub struct S3 {
    process: Process,
    address: SocketAddr,
}

impl S3 {
    /// Starts one and makes the bucket.
    ///
    /// # Errors
    /// If it is not installed, or does not answer.
    pub async fn start(sandbox: &Sandbox) -> Result<S3> {
        let path = workspace().join(".cache/python/venv/bin/moto_server");
        ensure!(path.exists(), "no {}; `deploy/setup.sh test` provides it", path.display());
        let address = free_address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let program = Program::new(path, ["-H".to_owned(), host, "-p".to_owned(), port]);
        let s3 = S3 { process: Process::start(program, sandbox.log("s3", false))?, address };
        eventually("the object store to have a bucket", START_DEADLINE, async || {
            let (status, body) = http::request(address, "PUT", &format!("/{BUCKET}")).await?;
            ensure!(status == 200, "{status} {body}");
            Ok(Some(()))
        })
        .await?;
        Ok(s3)
    }

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    /// State in it, under a prefix of the bucket.
    pub fn state(&self) -> State {
        self.state_through(self.address)
    }

    /// The same, reached through a proxy at the address.
    pub fn state_through(&self, address: SocketAddr) -> State {
        let environment = [
            ("AWS_ENDPOINT", format!("http://{address}")),
            ("AWS_REGION", "us-east-1".to_owned()),
            // It lets in whoever has any.
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        State { url: format!("s3://{BUCKET}/{PREFIX}"), environment }
    }

    /// Puts an object into the bucket and says where it is.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn put(&self, key: &str, object: &[u8]) -> Result<String> {
        let (status, body) = http::request_with(self.address, "PUT", &format!("/{BUCKET}/{key}"), object).await?;
        ensure!(status == 200, "{status} {body}");
        Ok(format!("s3://{BUCKET}/{key}"))
    }

    /// The names of what is in a folder below the place of state.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = format!("{PREFIX}/{folder}/");
        let path = format!("/{BUCKET}?list-type=2&delimiter=%2F&prefix={}", prefix.replace('/', "%2F"));
        let (status, body) = http::request(self.address, "GET", &path).await?;
        ensure!(status == 200, "{status} {body}");
        // <CommonPrefixes><Prefix>some/prefix/folder/name/</Prefix></CommonPrefixes>
        let found = body.split("<CommonPrefixes>").skip(1).filter_map(|text| {
            let name = text.split_once("<Prefix>")?.1.split_once("</Prefix>")?.0;
            Some(name.strip_prefix(&prefix)?.trim_end_matches('/').to_owned())
        });
        Ok(found.collect())
    }

    /// How many requests of a method it has answered so far.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn requests(&self, method: &str) -> Result<usize> {
        let log = self.process.log().read()?;
        // `127.0.0.1 - - [time] "PUT /weir/… HTTP/1.1" 200 -`, with colours around some of the requests.
        let wanted = format!("{method} /{BUCKET}/");
        Ok(log.lines().filter(|line| line.contains(&wanted)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::scenario;

    #[test]
    fn requests_are_counted() {
        scenario("s3", async |sandbox| {
            let s3 = S3::start(sandbox).await?;
            assert_eq!((s3.requests("PUT")?, s3.requests("GET")?), (0, 0), "making the bucket does not count");
            for name in ["a", "b"] {
                http::request(s3.address, "PUT", &format!("/{BUCKET}/{name}")).await?;
            }
            let (status, _) = http::request(s3.address, "GET", &format!("/{BUCKET}/nothing")).await?;
            assert_eq!(status, 404);
            assert_eq!((s3.requests("PUT")?, s3.requests("GET")?), (2, 1));
            http::request(s3.address, "PUT", &format!("/{BUCKET}/{PREFIX}/f/one/object")).await?;
            http::request(s3.address, "PUT", &format!("/{BUCKET}/{PREFIX}/f/two/object")).await?;
            assert_eq!(s3.folders("f").await?, ["one", "two"]);
            Ok(())
        });
    }
}
