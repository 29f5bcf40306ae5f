//! The report of a comparison: Markdown, JSON and plots of all sections that were run.

mod markdown;
mod svg;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::compare::{Run, Section};

/// Adds the run that begins to those in the results' directory; returns the number that it got.
pub fn save_run(results: &Path, run: Run) -> anyhow::Result<u32> {
    let mut runs = runs(results)?;
    let number = runs.last().map_or(1, |last| last.number + 1);
    runs.push(Run { number, ..run });
    let path = runs_file(results);
    std::fs::write(&path, serde_json::to_string(&runs)?).with_context(|| path.display().to_string())?;
    Ok(number)
}

/// The runs whose sections may be in the results' directory, oldest first.
fn runs(results: &Path) -> anyhow::Result<Vec<Run>> {
    let path = runs_file(results);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| format!("{} lists no runs", path.display()))
}

fn runs_file(results: &Path) -> PathBuf {
    results.join("runs.json")
}

/// Stores what a section found, for this report and later ones.
pub fn save_section(results: &Path, section: &Section) -> anyhow::Result<()> {
    let path = section_file(results, &section.name);
    std::fs::write(&path, serde_json::to_string(section)?).with_context(|| path.display().to_string())
}

fn section_file(results: &Path, name: &str) -> PathBuf {
    results.join(format!("{name}.section.json"))
}

/// Writes report.md, report.json and a plot for each section with latencies, of the stored sections among `names`;
/// returns the path of report.md.
pub fn write(results: &Path, names: &[&str]) -> anyhow::Result<PathBuf> {
    let mut sections = Vec::new();
    for name in names {
        let path = section_file(results, name);
        if path.exists() {
            let text = std::fs::read_to_string(&path)?;
            let section: Section = serde_json::from_str(&text)
                .with_context(|| format!("{} is not a section", path.display()))?;
            sections.push(section);
        }
    }
    for section in &sections {
        if let Some(plot) = svg::latencies(section) {
            std::fs::write(results.join(format!("{}.svg", section.name)), plot)?;
        }
    }
    std::fs::write(results.join("report.json"), serde_json::to_string(&sections)?)?;
    let path = results.join("report.md");
    std::fs::write(&path, markdown::page(&runs(results)?, &sections))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
