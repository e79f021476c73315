//! Pictures and maps side by side.

use super::error::{Error, Result};
use super::model::{FasBatch, Proxy, ProxyOut};
use indexmap::IndexMap;
use std::io::Cursor;
use tch::{Device, Kind, Tensor};

/// Rows of square tiles: a picture, then true and predicted maps by turns.
#[derive(Debug, Clone)]
pub struct Panel {
    tile: usize,
    rows: Vec<Vec<Vec<u8>>>,
}

/// Colours of the material classes.
const COLOURS: [[f64; 3]; 7] = [
    [30.0, 30.0, 30.0],
    [230.0, 170.0, 140.0],
    [240.0, 240.0, 220.0],
    [60.0, 120.0, 230.0],
    [90.0, 200.0, 90.0],
    [200.0, 80.0, 200.0],
    [110.0, 70.0, 30.0],
];

impl Panel {
    /// An empty panel of tiles of `tile` pixels.
    pub fn new(tile: usize) -> Self {
        Self { tile, rows: Vec::new() }
    }

    /// A row a sample: the picture, then for every predicted cue its true map and its prediction.
    ///
    /// # Errors
    /// [`Error::BadShape`] for maps of another number than the pictures, or that are none; libtorch's for pictures.
    pub fn comparing(batch: &FasBatch, out: &ProxyOut, tile: usize) -> Result<Self> {
        let mut panel = Self::new(tile);
        let count = batch.input.size().first().copied().unwrap_or(0);
        for map in out.maps.values().chain(batch.targets.maps.values()) {
            let found = map.size();
            if found.first() != Some(&count) {
                let (expected, found) = (format!("{count}, one a picture"), format!("{found:?}"));
                return Err(Error::BadShape { what: "maps of a panel", expected, found });
            }
        }
        for at in 0..count {
            let mut row = vec![panel.picture(&batch.input.get(at))?];
            for (proxy, predicted) in &out.maps {
                if let Some(target) = batch.targets.maps.get(proxy) {
                    row.push(panel.map(*proxy, &target.get(at))?);
                }
                let predicted = predicted.get(at);
                let shown = if *proxy == Proxy::Material { predicted.exp() } else { predicted };
                row.push(panel.map(*proxy, &shown)?);
            }
            panel.rows.push(row);
        }
        Ok(panel)
    }

    /// One sample's picture and predicted maps: what a detector saw.
    ///
    /// # Errors
    /// [`Error::BadShape`] for a map that is none; libtorch's for the picture.
    pub fn cues(picture: &Tensor, maps: &IndexMap<Proxy, Tensor>, tile: usize) -> Result<Self> {
        let mut panel = Self::new(tile);
        let mut row = vec![panel.picture(picture)?];
        for (proxy, map) in maps {
            let shown = if *proxy == Proxy::Material { map.exp() } else { map.shallow_clone() };
            row.push(panel.map(*proxy, &shown.squeeze_dim(0))?);
        }
        panel.rows.push(row);
        Ok(panel)
    }

    /// `[3, height, width]` in [0, 1] as a tile.
    fn picture(&self, picture: &Tensor) -> Result<Vec<u8>> {
        self.tile_of(&(picture * 255.0))
    }

    /// `[channels, height, width]` as a tile: grey for one channel, the classes' colours for seven.
    fn map(&self, proxy: Proxy, map: &Tensor) -> Result<Vec<u8>> {
        let size = map.size();
        let fits = |channels: i64| channels == proxy.channels() || (channels == 3 && proxy != Proxy::Material);
        if !matches!(*size, [channels, _, _] if fits(channels)) {
            let (expected, found) = (format!("[{}, height, width]", proxy.channels()), format!("{size:?}"));
            return Err(Error::BadShape { what: "map of a panel", expected, found });
        }
        if proxy != Proxy::Material {
            return self.tile_of(&(map.expand([3, -1, -1], false) * 255.0));
        }
        let colours = Tensor::from_slice(COLOURS.as_flattened()).view([7, 3]).to_kind(Kind::Float);
        let shares = map.to_device(Device::Cpu).to_kind(Kind::Float);
        let mixed = colours.tr().matmul(&shares.reshape([7, -1]));
        self.tile_of(&mixed.view([3, size[1], size[2]]))
    }

    fn tile_of(&self, values: &Tensor) -> Result<Vec<u8>> {
        let side = self.tile as i64;
        let values = values.to_device(Device::Cpu).to_kind(Kind::Float).unsqueeze(0);
        let scaled = values.f_upsample_nearest2d([side, side], None, None)?.clamp(0.0, 255.0);
        let bytes = scaled.squeeze_dim(0).permute([1, 2, 0]).contiguous().view([-1]).to_kind(Kind::Uint8);
        Ok(Vec::<u8>::try_from(bytes)?)
    }

    /// The PNG file.
    ///
    /// # Errors
    /// [`Error::BadShape`] for a panel without tiles.
    pub fn png(&self) -> Result<Vec<u8>> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let (width, height) = ((columns * self.tile) as u32, (self.rows.len() * self.tile) as u32);
        let refuse = |reason: &dyn ToString| Error::BadShape {
            what: "panel",
            expected: "tiles to draw".into(),
            found: reason.to_string(),
        };
        if width == 0 || height == 0 {
            return Err(refuse(&"none"));
        }
        let mut sheet = image::RgbImage::new(width, height);
        for (row, tiles) in self.rows.iter().enumerate() {
            for (column, tile) in tiles.iter().enumerate() {
                for (at, colour) in tile.chunks_exact(3).enumerate() {
                    let x = column * self.tile + at % self.tile;
                    let y = row * self.tile + at / self.tile;
                    sheet.put_pixel(x as u32, y as u32, image::Rgb([colour[0], colour[1], colour[2]]));
                }
            }
        }
        let mut file = Cursor::new(Vec::new());
        sheet.write_to(&mut file, image::ImageFormat::Png).map_err(|error| refuse(&error))?;
        Ok(file.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::model::ProxyTargets;

    #[test]
    fn tiles_lie_side_by_side_in_their_colours() {
        let cpu = (Kind::Float, tch::Device::Cpu);
        let skin = Tensor::zeros([1, 7, 2, 2], cpu);
        let _ = skin.narrow(1, 1, 1).fill_(1.0);
        let maps = IndexMap::from([(Proxy::Depth, Tensor::ones([1, 1, 2, 2], cpu)), (Proxy::Material, skin.log())]);
        let png = Panel::cues(&Tensor::zeros([3, 4, 4], cpu), &maps, 8).unwrap().png().unwrap();
        let sheet = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (24, 8));
        let at = |x| sheet.get_pixel(x, 3).0;
        assert_eq!([at(3), at(11), at(19)], [[0, 0, 0], [255, 255, 255], [230, 170, 140]]);
        assert!(matches!(Panel::new(8).png(), Err(Error::BadShape { what: "panel", .. })));
    }

    #[test]
    fn maps_that_are_none_are_refused() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, tch::Device::Cpu));
        let cues = |proxy, size: &[i64]| Panel::cues(&zeros(&[3, 4, 4]), &IndexMap::from([(proxy, zeros(size))]), 8);
        assert!(cues(Proxy::Reflection, &[1, 3, 2, 2]).is_ok());
        for (proxy, size) in
            [(Proxy::Depth, vec![1, 2, 2, 2]), (Proxy::Depth, vec![1, 2, 2]), (Proxy::Material, vec![1, 3, 2, 2])]
        {
            let refused = cues(proxy, &size);
            assert!(matches!(refused, Err(Error::BadShape { what: "map of a panel", .. })), "{proxy:?} {size:?}");
        }
        let depth = |count: i64| IndexMap::from([(Proxy::Depth, zeros(&[count, 1, 2, 2]))]);
        let batch = FasBatch {
            input: zeros(&[2, 3, 4, 4]),
            targets: ProxyTargets { live: zeros(&[2]), maps: depth(2) },
            attributes: zeros(&[2, 5]),
        };
        let out = |count: i64| ProxyOut {
            logit: zeros(&[count]),
            maps: depth(count),
            weights: IndexMap::new(),
            sigma: IndexMap::new(),
            embedding: zeros(&[count, 4]),
            kl: zeros(&[]),
        };
        assert!(Panel::comparing(&batch, &out(2), 8).is_ok());
        let refused = Panel::comparing(&batch, &out(1), 8).unwrap_err().to_string();
        assert_eq!(refused, "maps of a panel: expected 2, one a picture, found [1, 1, 2, 2]");
    }
}
