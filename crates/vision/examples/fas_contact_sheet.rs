//! Draws a sheet of generated pictures: `cargo run --release -p vision --example fas_contact_sheet -- sheet.png`.
//!
//! One row a domain: live, printed, cut, on a display, masked. With `--maps`, each picture is followed by its depth, reflection
//! and material. With `--time N`, N pictures are made and timed instead.

use clap::Parser;
use std::path::PathBuf;
use std::time::Instant;
use vision::fas::synth::{Attack, Domain, Generator, GeneratorConfig, MaskMaterial, Population, Rendered, SceneSpec};

#[derive(Parser)]
struct Arguments {
    /// Where the PNG goes.
    out: PathBuf,
    /// Master seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pixels of the scene raster.
    #[arg(long, default_value_t = 96)]
    raster: usize,
    /// Pixels of a crop.
    #[arg(long, default_value_t = 128)]
    crop: usize,
    /// Whole pictures instead of crops.
    #[arg(long)]
    frames: bool,
    /// True maps beside each picture.
    #[arg(long)]
    maps: bool,
    /// Makes this many pictures with 64-pixel crops and says how long it took.
    #[arg(long)]
    time: Option<usize>,
}

const ATTACKS: [Attack; 12] = [
    Attack::Live,
    Attack::Live,
    Attack::Print(0),
    Attack::Print(1),
    Attack::Print(2),
    Attack::CutPrint(0),
    Attack::Replay(0),
    Attack::Replay(2),
    Attack::Replay(3),
    Attack::Mask(MaskMaterial::Resin),
    Attack::Mask(MaskMaterial::Plastic),
    Attack::Mask(MaskMaterial::Silicone),
];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(count) = arguments.time {
        let generator =
            Generator::new(arguments.seed, GeneratorConfig { raster: arguments.raster, ..Default::default() })?;
        let mut specs = Population::default().specs();
        specs.truncate(count);
        let start = Instant::now();
        let made = generator.render_all(&specs)?.len();
        let seconds = start.elapsed().as_secs_f64();
        println!("{made} pictures in {seconds:.2} s: {:.0} a second", made as f64 / seconds);
        return Ok(());
    }
    let config = GeneratorConfig { raster: arguments.raster, crop: arguments.crop, map: 32.min(arguments.crop) };
    let generator = Generator::new(arguments.seed, config)?;
    let specs: Vec<SceneSpec> = Domain::ALL
        .iter()
        .enumerate()
        .flat_map(|(row, &domain)| {
            ATTACKS.iter().enumerate().map(move |(column, &attack)| {
                SceneSpec::new((row * 4 + column % 4) as u32, domain, attack, column as u32)
            })
        })
        .collect();
    let pictures = generator.render_all(&specs)?;
    let shown = if arguments.frames { 2 * arguments.raster } else { arguments.crop };
    let parts = if arguments.maps { 4 } else { 1 };
    let columns = ATTACKS.len() / if arguments.maps { 3 } else { 1 };
    let kept: Vec<&Rendered> =
        pictures.iter().enumerate().filter(|(at, _)| !arguments.maps || at % 3 == 0).map(|(_, p)| p).collect();
    let rows = kept.len() / columns;
    let mut sheet = image::RgbImage::new((columns * parts * shown) as u32, (rows * shown) as u32);
    for (at, picture) in kept.iter().enumerate() {
        let (left, top) = (at % columns * parts * shown, at / columns * shown);
        for j in 0..shown {
            for i in 0..shown * parts {
                let colour = pixel(picture, arguments.frames, config, shown, [i, j]);
                sheet.put_pixel((left + i) as u32, (top + j) as u32, image::Rgb(colour));
            }
        }
    }
    sheet.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    Ok(())
}

fn pixel(picture: &Rendered, frames: bool, config: GeneratorConfig, shown: usize, [i, j]: [usize; 2]) -> [u8; 3] {
    let (part, i) = (i / shown, i % shown);
    if part == 0 {
        let source = if frames { &picture.frame } else { &picture.image };
        let at = (j * shown + i) * 3;
        return [source[at], source[at + 1], source[at + 2]];
    }
    let cell = j * config.map / shown * config.map + i * config.map / shown;
    let grey = |value: f32| [(value.clamp(0.0, 1.0) * 255.0) as u8; 3];
    match part {
        1 => grey(picture.depth[cell]),
        2 => grey(picture.reflection[cell]),
        _ => {
            const COLOURS: [[f32; 3]; 7] = [
                [30.0, 30.0, 30.0],
                [230.0, 170.0, 140.0],
                [240.0, 240.0, 220.0],
                [60.0, 120.0, 230.0],
                [90.0, 200.0, 90.0],
                [200.0, 80.0, 200.0],
                [110.0, 70.0, 30.0],
            ];
            let cells = config.map * config.map;
            std::array::from_fn(|c| {
                (0..7).map(|class| picture.material[class * cells + cell] * COLOURS[class][c]).sum::<f32>() as u8
            })
        }
    }
}
