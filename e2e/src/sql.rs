//! A Postgres client that survives the loss of its server.
//!
//! Owns one connection, opened when first needed and again after it was lost. Statements go by the simple protocol and
//! answers are text, as psql has them. Only [`Sql::query`] asks again by itself: what is given to it must bear being
//! run twice.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::wait::PATIENCE;

/// How long [`Sql::query`] asks again.
const RETRY_DEADLINE: Duration = PATIENCE;
/// A statement without an answer for this long counts as lost.
const ANSWER_DEADLINE: Duration = PATIENCE;
/// How long to wait before asking again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A client of one frontend.
pub struct Sql {
    address: SocketAddr,
    client: Option<Client>,
}

/// What a statement answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The names of the columns; empty for statements without rows.
    pub columns: Vec<String>,
    /// The values as text, `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Sql {
    /// A client of the server at the address, not connected yet.
    pub fn new(address: SocketAddr) -> Sql {
        Sql { address, client: None }
    }

    /// Runs a statement once.
    ///
    /// # Errors
    /// If it cannot connect, loses the connection, or the server refuses the statement.
    pub async fn once(&mut self, statement: &str) -> Result<Answer> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.connect().await?,
        };
        let messages = tokio::time::timeout(ANSWER_DEADLINE, client.simple_query(statement))
            .await
            .with_context(|| format!("no answer within {ANSWER_DEADLINE:?}: {statement}"))?;
        self.client = Some(client);
        Ok(Answer::of(messages.with_context(|| statement.to_owned())?))
    }

    /// Runs a statement, again and again while the server is out of reach or asks for it.
    ///
    /// # Errors
    /// If the server refuses the statement, or the deadline has passed.
    pub async fn query(&mut self, statement: &str) -> Result<Answer> {
        let start = Instant::now();
        loop {
            match self.once(statement).await {
                Err(error) if is_transient(&error) && start.elapsed() < RETRY_DEADLINE => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The only value of the only row, parsed.
    ///
    /// # Errors
    /// As [`Sql::query`], or if the answer is something else.
    pub async fn value<T>(&mut self, statement: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let answer = self.query(statement).await?;
        ensure!(answer.rows.len() == 1 && answer.rows[0].len() == 1, "{statement}: not one value but {answer:?}");
        let text = answer.rows[0][0].as_deref().with_context(|| format!("{statement}: NULL"))?;
        text.parse().with_context(|| format!("{statement}: {text}"))
    }

    /// The error with which the server refuses a statement.
    ///
    /// # Errors
    /// If it does not refuse it.
    pub async fn refused(&mut self, statement: &str) -> Result<DbError> {
        match self.once(statement).await {
            Ok(answer) => bail!("{statement}: not refused but answered with {answer:?}"),
            Err(error) => match error.downcast_ref::<tokio_postgres::Error>().and_then(|e| e.as_db_error()) {
                Some(refusal) => Ok(refusal.clone()),
                None => Err(error),
            },
        }
    }

    async fn connect(&self) -> Result<Client> {
        let (host, port) = (self.address.ip(), self.address.port());
        let parameters = format!("host={host} port={port} user=root dbname=dev connect_timeout=5");
        let connecting = tokio_postgres::connect(&parameters, NoTls);
        // The client's own time limit covers the TCP connection but not the exchange after it.
        let (client, connection) =
            tokio::time::timeout(ANSWER_DEADLINE, connecting).await.context("no answer while connecting")??;
        // It ends when the client is dropped, or with an error that the next statement meets too.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Whether asking again may help: the server is out of reach, or says so itself by SQLSTATE.
fn is_transient(error: &anyhow::Error) -> bool {
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else {
        // Timeouts of our own, which say that the server went silent.
        return true;
    };
    match error.code() {
        // Connection exceptions, serialization failures, shutting down or starting up.
        Some(code) => code.code().starts_with("08") || code.code().starts_with("40") || code.code().starts_with("57P"),
        None => true,
    }
}

impl Answer {
    fn of(messages: Vec<SimpleQueryMessage>) -> Answer {
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    answer.rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
                }
                _ => {}
            }
        }
        answer
    }

    /// The values of a row; NULL is the empty string.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> Vec<&str> {
        self.rows[index].iter().map(|value| value.as_deref().unwrap_or("")).collect()
    }

    /// The values of a column by its name; NULL is the empty string.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, name: &str) -> Vec<&str> {
        let index = self.columns.iter().position(|column| column == name);
        let index = index.unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns));
        self.rows.iter().map(|row| row[index].as_deref().unwrap_or("")).collect()
    }
}

/// Prints as psql does: centred names, numbers to the right.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cell = |row: usize, column: usize| self.rows[row][column].as_deref().unwrap_or("");
        let columns = 0..self.columns.len();
        let widths = columns.clone().map(|column| {
            let values = (0..self.rows.len()).map(|row| cell(row, column).chars().count());
            values.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        });
        let widths = widths.collect::<Vec<_>>();
        let is_number = |column: usize| {
            let mut values = (0..self.rows.len()).map(|row| cell(row, column)).filter(|value| !value.is_empty());
            values.all(|value| value.parse::<f64>().is_ok())
        };
        let numeric = columns.clone().map(is_number).collect::<Vec<_>>();
        let join = |cells: Vec<String>, separator: &str| cells.join(separator).trim_end().to_owned();
        let head = columns.clone().map(|i| format!(" {:^1$} ", self.columns[i], widths[i])).collect();
        writeln!(f, "{}", join(head, "|"))?;
        writeln!(f, "{}", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"))?;
        for row in 0..self.rows.len() {
            let line = columns.clone().map(|i| {
                let (value, width) = (cell(row, i), widths[i]);
                if numeric[i] { format!(" {value:>width$} ") } else { format!(" {value:<width$} ") }
            });
            writeln!(f, "{}", join(line.collect(), "|"))?;
        }
        let count = self.rows.len();
        writeln!(f, "({count} row{})", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_printed_as_psql_does() {
        let text = |value: &str| Some(value.to_owned());
        let answer = Answer {
            columns: vec!["room".to_owned(), "viewers".to_owned()],
            rows: vec![vec![text("r1"), text("5")], vec![None, text("1200")]],
        };
        let wanted = " room | viewers\n------+---------\n r1   |       5\n      |    1200\n(2 rows)\n";
        assert_eq!(answer.to_string(), wanted);
    }
}
