//! Deep forests of probabilistic trees that learn their routing and their shape.
