//! Clients of PostgreSQL's from their registries, each of which does its ordinary work with Weir.
//!
//! The programs are in `e2e/clients`, one a client; `deploy/setup.sh clients` installs what they use. Each gets an address,
//! reads two tables and a view, looks them up in the catalogs, and prints `ok` if it found all as it should be. They hold
//! of PostgreSQL 15 with the same tables, too. `docs/clients.md` tells which client does what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use weir_e2e::process::workspace;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Weir;

/// How long a client may take, which takes seconds on an idle machine.
const CLIENT_DEADLINE: Duration = Duration::from_secs(180);
/// How long rows may take to be there.
const ROWS_DEADLINE: Duration = Duration::from_secs(60);

/// The subjects of the stream, each with a file of messages, and a query that tells when all of them are rows.
const SUBJECTS: [(&str, &str, u64); 3] = [
    ("devices", "SELECT count(*) FROM devices WHERE name <> 'replaced below'", 3),
    ("readings", "SELECT count(*) FROM readings", 4),
    ("reports", "SELECT count(*) FROM alarms", 2),
];

/// A program in one of the languages.
enum Program {
    /// In the virtual environment of the clients from PyPI.
    Python(&'static str),
    /// With the Node.js of that environment.
    Node(&'static str),
    /// With an interpreter of Debian's.
    Debian(&'static [&'static str], &'static str),
}

const JAVA: &[&str] = &["/usr/bin/java", "-cp", "/usr/share/java/postgresql.jar"];
const PERL: &[&str] = &["/usr/bin/perl"];
const RUBY: &[&str] = &["/usr/bin/ruby"];
const PHP: &[&str] = &["/usr/bin/php"];

/// Runs a program with the address of a Weir that has the tables, and with what it is to do if it does several things.
fn client(program: &Program, what: Option<&str>) {
    let name = match program {
        Program::Python(file) | Program::Node(file) | Program::Debian(_, file) => file,
    };
    scenario(name, async |sandbox| {
        let (_nats, weir) = with_tables(sandbox).await?;
        let mut command = program.command()?;
        command.args([weir.sql_address().ip().to_string(), weir.sql_address().port().to_string()]);
        // Nothing is written beside the programs.
        command.args(what).current_dir(sandbox.folder("client")?).env("PYTHONDONTWRITEBYTECODE", "1");
        let running = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(CLIENT_DEADLINE, running).await.context("the client does not end")?;
        let output = output.with_context(|| format!("cannot run {name}; `deploy/setup.sh clients` installs it"))?;
        let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && told.trim() == "ok", "{name}: {}\n{told}\n{errors}", output.status);
        Ok(())
    });
}

/// A standalone Weir with the tables and the view, and all rows in them.
async fn with_tables(sandbox: &Sandbox) -> Result<(Nats, Weir)> {
    let nats = Nats::start(sandbox).await?;
    let subjects = SUBJECTS.map(|(subject, ..)| subject);
    nats.create_stream("CLIENTS", &subjects).await?;
    let jetstream = nats.jetstream().await?;
    for subject in subjects {
        for message in read(&format!("data/{subject}.jsonl"))?.lines() {
            jetstream.publish(subject, message.to_owned().into()).await?.await?;
        }
    }
    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    let mut sql = weir.sql();
    create(&mut sql, &nats.address()).await?;
    for (_, query, wanted) in SUBJECTS {
        eventually_equal(query, ROWS_DEADLINE, wanted, async || sql.value::<u64>(query).await).await?;
    }
    Ok((nats, weir))
}

async fn create(sql: &mut Sql, server: &str) -> Result<()> {
    let schema = read("schema.sql")?.replace("{server}", server);
    for statement in schema.split(';').filter(|statement| !statement.trim().is_empty()) {
        sql.query(statement).await?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace().join("e2e/clients")
}

fn read(file: &str) -> Result<String> {
    let path = folder().join(file);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

impl Program {
    fn command(&self) -> Result<Command> {
        let installed = workspace().join(".cache/clients/python/venv/bin");
        let (interpreter, arguments, file): (PathBuf, &[&str], PathBuf) = match self {
            Program::Python(file) => (installed.join("python"), &[], folder().join("python").join(file)),
            Program::Node(file) => (installed.join("node"), &[], folder().join("node").join(file)),
            Program::Debian(command, file) => {
                let (interpreter, arguments) = command.split_first().context("a command has a program")?;
                (PathBuf::from(interpreter), arguments, folder().join("debian").join(file))
            }
        };
        let there = Path::exists(&interpreter);
        ensure!(there, "no {}; `deploy/setup.sh clients` provides it", interpreter.display());
        let mut command = Command::new(interpreter);
        command.args(arguments).arg(file);
        Ok(command)
    }
}

mod python {
    use super::{Program::Python, client};

    #[test]
    fn sqlalchemy_with_psycopg() {
        client(&Python("sqlalchemy_client.py"), Some("psycopg"));
    }

    #[test]
    fn sqlalchemy_with_psycopg2() {
        client(&Python("sqlalchemy_client.py"), Some("psycopg2"));
    }

    #[test]
    fn sqlalchemy_with_asyncpg() {
        client(&Python("sqlalchemy_client.py"), Some("asyncpg"));
    }

    #[test]
    fn pandas() {
        client(&Python("pandas_client.py"), None);
    }

    #[test]
    fn polars_with_adbc() {
        client(&Python("polars_client.py"), Some("adbc"));
    }

    #[test]
    fn polars_with_connectorx() {
        client(&Python("polars_client.py"), Some("connectorx"));
    }

    #[test]
    fn duckdb() {
        client(&Python("duckdb_client.py"), None);
    }

    #[test]
    fn django() {
        client(&Python("django_client.py"), None);
    }

    #[test]
    fn ibis() {
        client(&Python("ibis_client.py"), None);
    }

    #[test]
    fn dbt_postgres() {
        client(&Python("dbt_client.py"), Some("postgres"));
    }

    #[test]
    fn dbt_risingwave() {
        client(&Python("dbt_client.py"), Some("risingwave"));
    }

    #[test]
    fn odbc() {
        client(&Python("odbc_client.py"), None);
    }

    #[test]
    fn grafana_discovers() {
        client(&Python("discovery_client.py"), Some("grafana"));
    }

    #[test]
    fn metabase_discovers() {
        client(&Python("discovery_client.py"), Some("metabase"));
    }
}

mod node {
    use super::{Program::Node, client};

    #[test]
    fn node_postgres() {
        client(&Node("node-postgres.mjs"), None);
    }

    #[test]
    fn postgres_js() {
        client(&Node("postgres-js.mjs"), None);
    }

    #[test]
    fn knex() {
        client(&Node("knex.mjs"), None);
    }

    #[test]
    fn kysely() {
        client(&Node("kysely.mjs"), None);
    }

    #[test]
    fn sequelize() {
        client(&Node("sequelize.mjs"), None);
    }

    #[test]
    fn typeorm() {
        client(&Node("typeorm.mjs"), None);
    }

    #[test]
    fn drizzle() {
        client(&Node("drizzle.mjs"), None);
    }
}

mod debian {
    use super::{JAVA, PERL, PHP, Program::Debian, RUBY, client};

    #[test]
    fn jdbc() {
        client(&Debian(JAVA, "Jdbc.java"), None);
    }

    #[test]
    fn perl_dbd_pg() {
        client(&Debian(PERL, "dbd_pg.pl"), None);
    }

    #[test]
    fn ruby_pg() {
        client(&Debian(RUBY, "ruby_pg.rb"), None);
    }

    #[test]
    fn php_pdo() {
        client(&Debian(PHP, "pdo.php"), None);
    }
}
