//! The files of a configuration: which there are, and their trees.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Program,
    error::{Origin, Problem},
    ini,
    seed::Unused,
    toml_file,
    value::Node,
};

/// The main file, as TOML or as a file of the seed, and what in the latter nothing uses.
pub(super) fn read_main(program: &Program, file: &Path, is_toml: bool) -> Result<(Node, Vec<Unused>), Vec<Problem>> {
    if is_toml {
        return Ok((read_toml(file)?, Vec::new()));
    }
    let path: Arc<Path> = file.into();
    let Some(seed) = program.seed else {
        let what = format!("{} reads TOML; name the file something.toml", program.name);
        return Err(vec![Problem::new(Origin::file(&path, 0), "", what)]);
    };
    let bytes = std::fs::read(file).map_err(|error| unreadable(&path, &error))?;
    seed.apply(ini::parse(&bytes, &path)?, &path)
}

pub(super) fn read_toml(file: &Path) -> Result<Node, Vec<Problem>> {
    let path: Arc<Path> = file.into();
    let bytes = std::fs::read(file).map_err(|error| unreadable(&path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => toml_file::parse(&text, &path),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(vec![Problem::new(Origin::file(&path, line), "", "not UTF-8; save the file as UTF-8")])
        }
    }
}

fn unreadable(path: &Arc<Path>, error: &std::io::Error) -> Vec<Problem> {
    vec![Problem::new(Origin::file(path, 0), "", format!("can't be read: {error}"))]
}

/// `conf.d/*.toml`, then `NAME.d/*.toml`, beside NAME.toml.
pub(super) fn beside(main: &Path) -> Result<Vec<PathBuf>, Problem> {
    let folder = main.parent().unwrap_or(Path::new(""));
    let own = main.file_stem().map(|stem| {
        let mut name = stem.to_owned();
        name.push(".d");
        folder.join(name)
    });
    let mut all = Vec::new();
    let shared = folder.join("conf.d");
    let own = own.filter(|own| *own != shared);
    for part in [Some(shared), own].into_iter().flatten() {
        let unreadable = |error: std::io::Error| {
            Problem::new(Origin::file(&part.as_path().into(), 0), "", format!("can't be listed: {error}"))
        };
        let entries = match std::fs::read_dir(&part) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(unreadable)?.path();
            if file.extension().is_some_and(|extension| extension == "toml") {
                files.push(file);
            }
        }
        files.sort();
        all.extend(files);
    }
    Ok(all)
}
