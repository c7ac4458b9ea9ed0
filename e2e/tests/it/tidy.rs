//! The rules of style that a machine can check, over every file of the repository that is under
//! version control or about to be.
//!
//! Functions longer than 120 lines and files longer than 900 fail: not because those numbers mean
//! much, but so that growth is noticed. The rest are rules without exceptions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use syn::spanned::Spanned;
use syn::visit::Visit;
use weir_e2e::process::workspace;

const FUNCTION_LINES_MAX: usize = 120;
const FILE_LINES_MAX: usize = 900;

/// What each crate may depend on, of the workspace's crates. `dev-dependencies` count too.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("weir-proto", &[]),
    ("weir-common", &["weir-proto"]),
    ("weir-connector-nats", &["weir-proto", "weir-common"]),
    ("weir-stream", &["weir-proto", "weir-common"]),
    ("weir-compute", &["weir-proto", "weir-common", "weir-connector-nats", "weir-stream"]),
    ("weir-meta", &["weir-proto", "weir-common", "weir-connector-nats"]),
    ("weir-sql", &["weir-common", "weir-stream"]),
    ("weir-frontend", &["weir-proto", "weir-common", "weir-connector-nats", "weir-sql"]),
    (
        "weir",
        &["weir-proto", "weir-common", "weir-connector-nats", "weir-compute", "weir-meta", "weir-sql", "weir-frontend"],
    ),
    (
        "weir-e2e",
        &[
            "weir-proto",
            "weir-common",
            "weir-connector-nats",
            "weir-compute",
            "weir-meta",
            "weir-sql",
            "weir-frontend",
            "weir",
        ],
    ),
];

/// Crates whose top-level modules are rooms, which import each other one way.
const IN_ROOMS: [&str; 3] = ["compute", "sql", "frontend"];

/// Crates whose comments are wrapped at [`COMMENT_COLUMNS_MAX`].
const WRAPPED: [&str; 4] = ["compute", "sql", "frontend", "stream"];
const COMMENT_COLUMNS_MAX: usize = 100;

/// The files of the repository: tracked, or new and not ignored.
fn files() -> Result<Vec<PathBuf>> {
    let git = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()?;
    ensure!(git.status.success(), "git cannot list the files: {}", String::from_utf8_lossy(&git.stderr));
    let names = String::from_utf8(git.stdout)?;
    // A file that is deleted but still tracked is listed too.
    Ok(names.lines().map(|name| workspace().join(name)).filter(|path| path.is_file()).collect())
}

fn rust_files() -> Result<Vec<(PathBuf, String)>> {
    let rust = files()?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| {
        let text = std::fs::read_to_string(&path)?;
        Ok((path, text))
    })
    .collect()
}

fn short(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

fn none(findings: Vec<String>) -> Result<()> {
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}

/// Collects functions that are too long and macros that mark unfinished work.
struct Findings<'a> {
    file: &'a str,
    found: Vec<String>,
}

impl Findings<'_> {
    fn function(&mut self, signature: &syn::Signature, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            let at = span.start().line;
            self.found.push(format!("{}:{at}: function `{}` has {lines} lines", self.file, signature.ident));
        }
    }
}

impl<'a> Visit<'a> for Findings<'_> {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig, item.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig, item.span());
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        self.function(&item.sig, item.span());
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        let name = item.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if ["dbg", "todo", "unimplemented"].contains(&name.as_str()) {
            self.found.push(format!("{}:{}: {name}!", self.file, item.span().start().line));
        }
        syn::visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        if attribute.path().is_ident("ignore") {
            self.found.push(format!("{}:{}: #[ignore]", self.file, attribute.span().start().line));
        }
    }
}

#[test]
fn functions_are_of_a_size_and_nothing_is_left_unfinished() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in rust_files()? {
        let file = syn::parse_file(&text).with_context(|| short(&path))?;
        let name = short(&path);
        let mut findings = Findings { file: &name, found: Vec::new() };
        findings.visit_file(&file);
        found.append(&mut findings.found);
    }
    none(found)
}

#[test]
fn files_are_of_a_size() -> Result<()> {
    let long = rust_files()?.into_iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", short(&path)))
    });
    none(long.collect())
}

#[test]
fn every_module_opens_with_what_it_is_for() -> Result<()> {
    let silent = rust_files()?.into_iter().filter(|(_, text)| !text.trim_start().starts_with("//!"));
    none(silent.map(|(path, _)| format!("{} does not open with //!", short(&path))).collect())
}

#[test]
fn nothing_is_marked_to_be_done_later() -> Result<()> {
    // Put together here, so that this file does not find itself.
    let marks = ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]).map(|(a, b)| format!("{a}{b}")).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (path, text) in text_files()? {
        for (line, number) in text.lines().zip(1..) {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
            if words.any(|word| marks.iter().any(|mark| mark == word)) {
                found.push(format!("{}:{number}: {}", short(&path), line.trim()));
            }
        }
    }
    none(found)
}

#[test]
fn grpc_servers_accept_connections_through_the_common_helper() -> Result<()> {
    // In two halves, so that this file does not find itself.
    let bare = format!("{}{}", "TcpListener", "Stream");
    let uses = rust_files()?.into_iter().filter(|(_, text)| text.contains(&bare));
    none(uses.map(|(path, _)| format!("{} uses {bare} and not weir_common::listen", short(&path))).collect())
}

/// Every file that is text, except for those that machines write.
fn text_files() -> Result<Vec<(PathBuf, String)>> {
    let texts = files()?.into_iter().filter(|path| path.file_name().is_some_and(|name| name != "Cargo.lock"));
    Ok(texts.filter_map(|path| Some((path.clone(), std::fs::read_to_string(&path).ok()?))).collect())
}

#[test]
fn no_file_names_a_machine_or_a_registry() -> Result<()> {
    // In two halves, so that this file does not find itself.
    let halves = [
        ("/ho", "me/"),
        ("/ro", "ot/"),
        ("/wo", "rk/"),
        ("/Us", "ers/"),
        ("deb.deb", "ian.org"),
        ("archive.ubu", "ntu.com"),
        ("crat", "es.io"),
        ("py", "pi.org"),
        ("pythonhos", "ted.org"),
        ("npm", "js.org"),
        ("npm", "js.com"),
    ];
    let names = halves.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for (path, text) in text_files()? {
        for (line, number) in text.lines().zip(1..) {
            if let Some(name) = names.iter().find(|name| line.contains(name.as_str())) {
                found.push(format!("{}:{number}: names {name}", short(&path)));
            }
        }
    }
    none(found)
}

/// The crates of the workspace that a manifest names, by the crate's name.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).filter(|name| name == "weir" || name.starts_with("weir-")).collect()
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let may_use = BTreeMap::from(MAY_USE);
    let root: toml::Table = std::fs::read_to_string(workspace().join("Cargo.toml"))?.parse()?;
    let members = root["workspace"]["members"].as_array().context("the workspace has members")?;
    ensure!(members.len() == MAY_USE.len(), "a crate is missing from the table of this test");
    let mut found = Vec::new();
    for member in members {
        let folder = member.as_str().context("a member is a path")?;
        let manifest: toml::Table = std::fs::read_to_string(workspace().join(folder).join("Cargo.toml"))?.parse()?;
        let name = manifest["package"]["name"].as_str().context("a package has a name")?;
        let allowed = may_use.get(name).with_context(|| format!("{name} is missing from the table of this test"))?;
        for used in dependencies(&manifest) {
            if !allowed.contains(&used.as_str()) {
                found.push(format!("{name} must not depend on {used}"));
            }
        }
    }
    none(found)
}

/// Collects the rooms of its crate that a file imports, tests aside.
struct Imports<'a> {
    /// The rooms by the names that paths begin with: their own, and those that the crate's root
    /// re-exports from them.
    rooms: &'a BTreeMap<String, String>,
    /// How many modules enclose the place that is visited.
    depth: usize,
    found: BTreeSet<String>,
}

impl Imports<'_> {
    /// Takes the beginning of a path; it leads to a room if it begins at the crate's root.
    fn path(&mut self, segments: &[String]) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let from_root = match segments.first().map(String::as_str) {
            Some("crate") => 1,
            Some("super") if supers >= self.depth => supers,
            _ => return,
        };
        self.found.extend(segments.get(from_root).and_then(|name| self.rooms.get(name)).cloned());
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.path(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.path(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.path(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'a> Visit<'a> for Imports<'_> {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(item) {
            self.depth += 1;
            syn::visit::visit_item_mod(self, item);
            self.depth -= 1;
        }
    }
}

fn is_test(module: &syn::ItemMod) -> bool {
    let is_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    module.attrs.iter().any(is_test)
}

/// Rooms of a crate that import each other in a circle, or lie between two circles, each with what
/// it imports of the others. `files` are paths below `src`, with their texts.
fn circles(files: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let parsed = files.iter().map(|(path, text)| Ok((path.as_str(), syn::parse_file(text).context(path.clone())?)));
    let parsed: BTreeMap<&str, syn::File> = parsed.collect::<Result<_>>()?;
    let root = parsed.get("lib.rs").context("a crate in rooms is a library")?;
    let mut rooms = BTreeMap::new();
    for item in &root.items {
        if let syn::Item::Mod(room) = item {
            rooms.insert(room.ident.to_string(), room.ident.to_string());
        }
    }
    for item in &root.items {
        if let syn::Item::Use(syn::ItemUse { tree: syn::UseTree::Path(path), .. }) = item {
            re_exports(&path.ident.to_string(), &path.tree, &mut rooms);
        }
    }
    let mut imports: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let is_of_tests = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for (path, file) in parsed.iter().filter(|(path, _)| **path != "lib.rs" && !is_of_tests(path)) {
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let room = path.split('/').next().unwrap_or_default();
        let mut found = Imports { rooms: &rooms, depth: path.split('/').count(), found: BTreeSet::new() };
        found.visit_file(file);
        found.found.remove(room);
        imports.entry(room).or_default().append(&mut found.found);
    }
    // Without circles there is always a room that imports none, or that none imports.
    loop {
        let known: BTreeSet<String> = imports.keys().map(|room| (*room).to_owned()).collect();
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        imports.values_mut().for_each(|rooms| rooms.retain(|room| known.contains(room)));
        imports.retain(|room, rooms| !rooms.is_empty() && imported.contains(*room));
        if imports.len() == known.len() {
            break;
        }
    }
    Ok(imports.into_iter().map(|(room, rooms)| format!("{room} imports {rooms:?}")).collect())
}

/// Adds the names that the crate's root re-exports from a room.
fn re_exports(room: &str, tree: &syn::UseTree, rooms: &mut BTreeMap<String, String>) {
    match tree {
        syn::UseTree::Path(path) => re_exports(room, &path.tree, rooms),
        syn::UseTree::Name(name) => drop(rooms.insert(name.ident.to_string(), room.to_owned())),
        syn::UseTree::Rename(rename) => drop(rooms.insert(rename.rename.to_string(), room.to_owned())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| re_exports(room, tree, rooms)),
        syn::UseTree::Glob(_) => {}
    }
}

#[test]
fn rooms_import_each_other_one_way() -> Result<()> {
    let mut found = Vec::new();
    for member in IN_ROOMS {
        let source = workspace().join(member).join("src");
        let files = rust_files()?.into_iter().filter_map(|(path, text)| {
            let path = path.strip_prefix(&source).ok()?.display().to_string();
            Some((path, text))
        });
        found.extend(circles(&files.collect())?.into_iter().map(|circle| format!("{member}: {circle}")));
    }
    none(found)
}

#[test]
fn a_circle_of_rooms_is_found() -> Result<()> {
    let lib = "pub mod a; mod b; mod c; pub use c::deep::{Word, Other};";
    let crate_of = |a: &str, b: &str, c: &str| {
        let files = [("lib.rs", lib), ("a/mod.rs", "mod x;"), ("a/x.rs", a), ("b.rs", b), ("c.rs", c)];
        circles(&files.map(|(path, text)| (path.to_owned(), text.to_owned())).into())
    };
    let tests = "#[cfg(test)] mod tests { use crate::a; }";
    assert_eq!(crate_of("use crate::b::{self}; use super::y;", "use crate::Word;", tests)?, Vec::<String>::new());
    let circle = ["a imports {\"b\"}", "b imports {\"a\"}"];
    assert_eq!(crate_of("use super::super::b::Z;", "fn f() { crate::a::x() }", "use crate::{a, b};")?, circle);
    let circle = ["a imports {\"c\"}", "c imports {\"a\"}"];
    assert_eq!(crate_of("fn f(_: crate::Other) {}", "", "mod deep { use super::super::a::*; }")?, circle);
    Ok(())
}

#[test]
fn comments_are_wrapped() -> Result<()> {
    let is_of = |path: &Path| WRAPPED.iter().any(|member| path.starts_with(workspace().join(member)));
    let mut found = Vec::new();
    for (path, text) in rust_files()?.into_iter().filter(|(path, _)| is_of(path)) {
        for (line, number) in text.lines().zip(1..) {
            let columns = line.chars().count();
            if line.trim_start().starts_with("//") && columns > COMMENT_COLUMNS_MAX {
                found.push(format!("{}:{number}: a comment of {columns} columns", short(&path)));
            }
        }
    }
    none(found)
}

/// The files of the repository that a page names: the targets of its links, and words in backticks
/// that hold a slash and look like a path.
fn named_files(page: &str) -> Vec<String> {
    let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://")).filter_map(|link| link.split('#').next());
    // Code that is set off from the text holds examples, not names.
    let text = page.lines().filter(|line| !line.starts_with("    ") && !line.starts_with("```"));
    let text = text.collect::<Vec<_>>().join("\n");
    let code = text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let is_path = |word: &&String| {
        let relative = !word.starts_with(['/', '.', '-']) || word.starts_with("../") || word.starts_with(".ci/");
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        relative && plain && word.contains('/')
    };
    let links = links.filter(|link| !link.is_empty()).map(str::to_owned);
    links.chain(code.iter().filter(is_path).cloned()).collect()
}

/// Returns true if there is such a file or folder: beside the page, at the root, or, for a module,
/// in the source of a crate.
fn exists(page: &Path, name: &str) -> bool {
    let beside = page.parent().is_some_and(|folder| folder.join(name).exists());
    // Made by building or by setting up, so perhaps not there now.
    let made = ["target/", ".cache/"].iter().any(|folder| name.starts_with(folder));
    let in_crate = MAY_USE.iter().any(|(member, _)| {
        let member = member.strip_prefix("weir-").unwrap_or(member);
        workspace().join(member).join("src").join(name).exists() || workspace().join(member).join(name).exists()
    });
    beside || made || in_crate || workspace().join(name).exists()
}

#[test]
fn files_that_the_documentation_names_are_there() -> Result<()> {
    let mut found = Vec::new();
    let (mut pages, mut names) = (0, 0);
    for (path, text) in text_files()?.into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "md")) {
        pages += 1;
        for name in named_files(&text) {
            names += 1;
            if !exists(&path, &name) {
                found.push(format!("{} names {name}, which is not there", short(&path)));
            }
        }
    }
    ensure!(pages >= 8 && names >= 30, "only {names} names in {pages} pages: this test no longer understands them");
    none(found)
}

#[test]
fn names_of_files_are_found_in_a_page() {
    let page = "See [there](docs/a.md#part) and [out](https://x.y/z), `meta/src/b.rs`, `seal.rs`, `/ready`, `a ÷ b/c`,\n\
                `table ‖ vnode`, [here](#part)\n\n    psql `x/y`\n";
    assert_eq!(named_files(page), ["docs/a.md", "meta/src/b.rs"]);
}
