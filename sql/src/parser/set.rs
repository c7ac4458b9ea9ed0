//! `SET`, `RESET` and `SHOW`: session variables, and RisingWave's other uses of `SHOW`.

use sqlparser::tokenizer::Token;
use weir_common::catalog::RelationKind;

use super::Statement;
use super::cursor::Cursor;
use crate::error::Error;
use crate::keywords::quoted_identifier;

/// The variable whose value is a list of schemas.
const SEARCH_PATH: &str = "search_path";

impl Cursor<'_> {
    pub(super) fn set(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        if self.words(&["CONSTRAINTS"]) {
            return Ok(self.nothing("SET CONSTRAINTS"));
        }
        if self.words(&["SESSION", "CHARACTERISTICS"]) {
            return self.set_characteristics();
        }
        let is_local = !self.words(&["SESSION"]) && self.words(&["LOCAL"]);
        if self.words(&["TRANSACTION"]) {
            return self.set_transaction();
        }
        let location = self.here();
        if self.words(&["TIME", "ZONE"]) {
            let is_interval = self.words(&["INTERVAL"]);
            let value = self.variable_value()?;
            if is_interval && self.words(&["HOUR"]) {
                let _noise = self.words(&["TO", "MINUTE"]);
            }
            self.expect_end()?;
            let value = value.filter(|value| !value.eq_ignore_ascii_case("local"));
            return Ok(Statement::Set { name: "timezone".to_owned(), value, is_local, location });
        }
        if self.words(&["NAMES"]) {
            let value = if self.at_end() { None } else { self.variable_value()? };
            self.expect_end()?;
            return Ok(Statement::Set { name: "client_encoding".to_owned(), value, is_local, location });
        }
        if self.words(&["SCHEMA"]) {
            let value = self.schema_value()?;
            self.expect_end()?;
            return Ok(Statement::Set { name: SEARCH_PATH.to_owned(), value, is_local, location });
        }
        let name = self.variable_name()?;
        if !self.parser.consume_token(&Token::Eq) && !self.words(&["TO"]) {
            return Err(self.expected("TO or \"=\""));
        }
        if name == SEARCH_PATH {
            let value = self.schema_list()?;
            self.expect_end()?;
            return Ok(Statement::Set { name, value, is_local, location });
        }
        let mut value = self.variable_value()?;
        while self.parser.consume_token(&Token::Comma) {
            if let (Some(list), Some(next)) = (value.as_mut(), self.variable_value()?) {
                list.push_str(", ");
                list.push_str(&next);
            }
        }
        self.expect_end()?;
        Ok(Statement::Set { name, value, is_local, location })
    }

    pub(super) fn reset(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let location = self.here();
        if self.words(&["ALL"]) {
            self.expect_end()?;
            return Ok(Statement::ResetAll);
        }
        let name = if self.words(&["TIME", "ZONE"]) { "timezone".to_owned() } else { self.variable_name()? };
        self.expect_end()?;
        Ok(Statement::Set { name, value: None, is_local: false, location })
    }

    pub(super) fn show(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let relations = [
            (&["TABLES"][..], RelationKind::Table),
            (&["SOURCES"], RelationKind::Source),
            (&["VIEWS"], RelationKind::View),
            (&["MATERIALIZED", "VIEWS"], RelationKind::MaterializedView),
        ];
        if let Some((_, kind)) = relations.into_iter().find(|(words, _)| self.words(words)) {
            let schema = match self.words(&["FROM"]) || self.words(&["IN"]) {
                true => Some(self.schema_name()?),
                false => None,
            };
            self.expect_end()?;
            return Ok(Statement::ShowRelations(kind, schema));
        }
        let created = [
            (&["CREATE", "TABLE"][..], RelationKind::Table),
            (&["CREATE", "SOURCE"], RelationKind::Source),
            (&["CREATE", "VIEW"], RelationKind::View),
            (&["CREATE", "MATERIALIZED", "VIEW"], RelationKind::MaterializedView),
        ];
        for (words, kind) in created {
            if self.words(words) {
                let name = self.table_name()?;
                self.expect_end()?;
                return Ok(Statement::ShowCreate(kind, name));
            }
        }
        if self.words(&["COLUMNS", "FROM"]) {
            let name = self.table_name()?;
            self.expect_end()?;
            return Ok(Statement::Describe(name));
        }
        if self.words(&["SCHEMAS"]) {
            self.expect_end()?;
            return Ok(Statement::ShowSchemas);
        }
        if self.words(&["DATABASES"]) {
            self.expect_end()?;
            return Ok(Statement::ShowDatabases);
        }
        if self.words(&["CLUSTER"]) {
            self.expect_end()?;
            return Ok(Statement::ShowCluster);
        }
        if self.words(&["JOBS"]) {
            self.expect_end()?;
            return Ok(Statement::ShowJobs);
        }
        if self.words(&["ALL"]) {
            self.expect_end()?;
            return Ok(Statement::ShowAll);
        }
        const LATER: [&str; 6] = ["CREATE", "MATERIALIZED", "SINKS", "INDEXES", "FUNCTIONS", "CONNECTIONS"];
        if let Some(word) = self.peek_word().filter(|word| LATER.contains(&word.as_str())) {
            return Err(self.unsupported(&format!("SHOW {word}")));
        }
        let name = if self.words(&["TIME", "ZONE"]) {
            "timezone".to_owned()
        } else if self.words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            "transaction_isolation".to_owned()
        } else {
            self.variable_name()?
        };
        self.expect_end()?;
        Ok(Statement::ShowVariable(name))
    }

    fn variable_name(&mut self) -> Result<String, Error> {
        let (mut name, _) = self.name("the name of a variable")?;
        while self.parser.consume_token(&Token::Period) {
            name.push('.');
            name.push_str(&self.name("the name of a variable")?.0);
        }
        Ok(name.to_lowercase())
    }

    /// Parses a list of schemas into the form of the variable; `None` for DEFAULT.
    fn schema_list(&mut self) -> Result<Option<String>, Error> {
        let Some(mut list) = self.schema_value()? else { return Ok(None) };
        while self.parser.consume_token(&Token::Comma) {
            let next = self.schema_value()?.ok_or_else(|| self.expected("the name of a schema"))?;
            list = format!("{list}, {next}");
        }
        Ok(Some(list))
    }

    /// Parses the name of a schema, also as a text, and quotes it where it has to be; `None` for
    /// DEFAULT.
    fn schema_value(&mut self) -> Result<Option<String>, Error> {
        if self.words(&["DEFAULT"]) {
            return Ok(None);
        }
        let name = match self.parser.peek_token().token {
            Token::SingleQuotedString(name) | Token::EscapedStringLiteral(name) => {
                self.parser.advance_token();
                name
            }
            _ => self.schema_name()?.name,
        };
        Ok(Some(quoted_identifier(&name)))
    }

    /// Parses a literal or a bare word; `None` for DEFAULT.
    fn variable_value(&mut self) -> Result<Option<String>, Error> {
        if self.words(&["DEFAULT"]) {
            return Ok(None);
        }
        let negative = self.parser.consume_token(&Token::Minus);
        let value = match self.parser.peek_token().token {
            Token::Number(number, _) if negative => format!("-{number}"),
            Token::Number(number, _) => number,
            _ if negative => return Err(self.expected("a number")),
            Token::SingleQuotedString(value) | Token::EscapedStringLiteral(value) => value,
            Token::Word(word) if matches!(word.quote_style, None | Some('"')) => word.value,
            _ => return Err(self.expected("a value")),
        };
        self.parser.advance_token();
        Ok(Some(value))
    }
}
