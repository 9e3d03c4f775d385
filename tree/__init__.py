"""Grow revision trees and extract preference pairs."""
