module github.com/oob-bundle/oob-bundle/ci/programs

go 1.25.0
