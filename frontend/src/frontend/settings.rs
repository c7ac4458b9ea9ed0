//! The settings of transactions: what a read-only one refuses, and how they change.

use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Statement, TransactionModes};

use super::{Answer, alter_tag, create_tag, drop_tag};
use crate::notice::Notice;
use crate::session::{Session, Variables, is_of_transaction};

/// Refuses statements that a read-only transaction cannot run.
pub(super) fn check_read_only(session: &Session, statement: &Statement) -> Result<(), Error> {
    let command = match statement {
        Statement::CreateTable(create) => create_tag(create.kind),
        Statement::CreateTableAs(_) => "CREATE TABLE AS",
        Statement::CopyFrom(_) => "COPY FROM",
        Statement::CreateView(create) => create_tag(create.kind),
        Statement::Comment(_) => "COMMENT",
        Statement::Alter(alter) => alter_tag(alter.kind),
        Statement::Drop { kind, .. } => drop_tag(*kind),
        Statement::Schema(command) => command.tag(),
        _ => return Ok(()),
    };
    check_writable(session, command)
}

/// Refuses a command that a read-only transaction cannot run.
pub(super) fn check_writable(session: &Session, command: &str) -> Result<(), Error> {
    if !session.variables().is_on("transaction_read_only") {
        return Ok(());
    }
    let message = format!("cannot execute {command} in a read-only transaction");
    Err(Error::user(sqlstate::READ_ONLY_SQL_TRANSACTION, message))
}

/// Runs SET and RESET of a variable. `is_local`: until the transaction ends.
pub(super) fn set(session: &Session, name: &str, value: Option<&str>, is_local: bool) -> Result<Answer, Error> {
    if is_of_transaction(name) {
        settled(session, name, value)?;
    }
    let set = if is_local { Variables::set_local } else { Variables::set };
    let change = set(&mut session.variables(), name, value)?;
    let mut notices: Vec<Notice> = change.notice.iter().map(Notice::new).collect();
    if is_local && !session.transaction().is_open() {
        let message = "SET LOCAL can only be used in transaction blocks";
        notices = vec![Notice::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message)];
    }
    let tag = if value.is_some() { "SET" } else { "RESET" };
    Ok(Answer::Done { tag: tag.into(), notices, changes: vec![change] })
}

/// Runs `SET TRANSACTION`, which has no effect outside of a transaction, and
/// `SET SESSION CHARACTERISTICS`.
pub(super) fn set_transaction(session: &Session, modes: &TransactionModes, of_session: bool) -> Result<Answer, Error> {
    let mut notices = Vec::new();
    let mut changes = Vec::new();
    if of_session {
        let mut variables = session.variables();
        for (name, value) in modes.settings() {
            changes.push(variables.set(&format!("default_{name}"), Some(value))?);
        }
    } else if session.transaction().is_open() {
        for (name, value) in modes.settings() {
            settled(session, name, Some(value))?;
            changes.push(session.variables().set_local(name, Some(value))?);
        }
    } else {
        let message = "SET TRANSACTION can only be used in transaction blocks";
        notices.push(Notice::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message));
    }
    Ok(Answer::Done { tag: "SET".into(), notices, changes })
}

/// Refuses to change the isolation level of a transaction that has run a query.
fn settled(session: &Session, name: &str, value: Option<&str>) -> Result<(), Error> {
    let changes = name.eq_ignore_ascii_case("transaction_isolation")
        && value.is_some_and(|value| session.variables().get(name).is_none_or(|now| !now.eq_ignore_ascii_case(value)));
    if changes && session.transaction().has_read() {
        let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
        return Err(Error::user(sqlstate::ACTIVE_SQL_TRANSACTION, message));
    }
    Ok(())
}
