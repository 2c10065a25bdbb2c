"""Tests against real servers, each on MariaDB and on MySQL 9."""
