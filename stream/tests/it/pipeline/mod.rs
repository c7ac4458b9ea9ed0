//! Tests of operators: scripts that read as documentation (`golden`), and random jobs that are
//! compared with a naive answer (`equal`, and `failing` for rows that fail).
//!
//! `WEIR_GOLDEN=write` writes the outputs of scripts anew.

mod equal;
mod failing;
mod functions;
mod job;
mod script;

use std::path::Path;

#[test]
fn scripts_have_the_output_that_is_written_below_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pipeline/golden");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        let golden = std::fs::read_to_string(&path).expect("a file");
        let case = |case: &str| {
            let script = case.split("\n--").next().expect("split gives one part").trim();
            format!("{script}\n--\n{}", script::run(script))
        };
        let found: Vec<String> = golden.trim_end().split("\n\n\n").map(case).collect();
        let found = found.join("\n\n");
        if std::env::var("WEIR_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, found).expect("a file");
        } else {
            assert_eq!(found, golden, "{}", path.display());
        }
    }
}
