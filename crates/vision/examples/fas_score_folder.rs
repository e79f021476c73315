//! Scores the pictures of a folder with a saved detector and writes CSV:
//! `cargo run --release -p vision --example fas_score_folder -- detector.safetensors pictures/ scores.csv`.
//!
//! Faces are taken to fill the pictures unless `boxes.csv` (`file,x,y,width,height`) says where they are. A picture that
//! cannot be read is a row with its error, not the end.

use clap::Parser;
use std::collections::HashMap;
use std::path::PathBuf;
use vision::fas::Detector;
use vision::fas::data::{PixelBox, read_frame};

#[derive(Parser)]
struct Arguments {
    /// What `fas_train` saved.
    detector: PathBuf,
    /// A folder of PNG and JPEG files.
    pictures: PathBuf,
    /// Where the table goes.
    out: PathBuf,
    /// Where the faces are.
    #[arg(long)]
    boxes: Option<PathBuf>,
    /// Draws what the network saw and predicted into this folder.
    #[arg(long)]
    explain: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let detector = Detector::load(&arguments.detector)?;
    let mut boxes: HashMap<String, PixelBox> = HashMap::new();
    if let Some(path) = &arguments.boxes {
        for row in csv::Reader::from_path(path)?.deserialize() {
            let (file, x, y, width, height): (String, f64, f64, f64, f64) = row?;
            boxes.insert(file, PixelBox { x, y, width, height });
        }
    }
    if let Some(folder) = &arguments.explain {
        std::fs::create_dir_all(folder)?;
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&arguments.pictures)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| {
        file.extension().is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|known| e.eq_ignore_ascii_case(known)))
    });
    files.sort();
    let mut table = csv::Writer::from_path(&arguments.out)?;
    table.write_record(["file", "score", "decision", "uncertainty", "error"])?;
    for file in &files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match read_frame(file).and_then(|picture| detector.assess(&picture, boxes.get(&name).copied())) {
            Ok(seen) => {
                let uncertainty = seen.uncertainty.map(|sigma| format!("{sigma:.4}")).unwrap_or_default();
                let decision = format!("{:?}", seen.decision);
                table.write_record([&name, &format!("{:.6}", seen.score), &decision, &uncertainty, ""])?;
                if let Some(folder) = &arguments.explain {
                    std::fs::write(folder.join(format!("{name}.cues.png")), seen.explain()?)?;
                }
            }
            Err(error) => table.write_record([&name, "", "", "", &error.to_string()])?,
        }
    }
    table.flush()?;
    println!("{} pictures in {}", files.len(), arguments.out.display());
    Ok(())
}
