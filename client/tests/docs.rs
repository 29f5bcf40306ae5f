//! What the documentation promises of all public functions, checked in the sources.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The documentation above each public async function, by name.
fn async_functions(source: &str) -> Vec<(String, String)> {
    let (mut docs, mut found) = (String::new(), Vec::new());
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            docs += text;
        } else if let Some(rest) = line.strip_prefix("pub async fn ") {
            let end = rest.find(['(', '<']).unwrap();
            found.push((rest[..end].to_owned(), std::mem::take(&mut docs)));
        } else if !line.starts_with("#[") {
            docs.clear();
        }
    }
    found
}

#[test]
fn every_async_function_tells_what_cancelling_does() {
    let (mut files, mut checked) = (Vec::new(), 0);
    sources(Path::new("src"), &mut files);
    for file in files {
        for (name, docs) in async_functions(&fs::read_to_string(&file).unwrap()) {
            let told = docs.to_lowercase().contains("cancel-safe") || docs.contains("Dropping the future");
            assert!(told, "{}: {name} does not tell", file.display());
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} functions were found");
}

/// The guide and CI know every example.
#[test]
fn every_example_is_in_the_guide_and_is_run() {
    let (guide, runner) = (fs::read_to_string("src/lib.rs"), fs::read_to_string("../tools/interop/client"));
    let (guide, runner, mut files) = (guide.unwrap(), runner.unwrap(), Vec::new());
    sources(Path::new("examples"), &mut files);
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(guide.contains(&format!("| `{name}` |\n")), "{name} is not in the guide");
        assert!(runner.contains(&format!("\"{name}\"")), "{name} is not run");
    }
    assert!(files.len() >= 12, "only {} examples were found", files.len());
}

/// Channels have a size each; queues of other kinds stand next to their limits.
#[test]
fn no_channel_is_without_bound() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let unbounded = ["unbounded", "mpsc::Sender::new"];
        assert!(unbounded.iter().all(|name| !source.contains(name)), "{}", file.display());
    }
}
